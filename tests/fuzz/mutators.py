"""Inputs that are nearly right: valid ones with a few things changed, from a seeded generator.

Bytes alone get no further than the first check of a strict parser, so mutations know what the
inputs are made of: fixed-width integers in frames, tokens and members in JSON.
"""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence

from twopm_flower.errors import RecordError
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.records.canonical import canonical_bytes

Change = Callable[[random.Random, bytes, bytes], bytes]

NUMBERS = (0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**54, 2**63 - 1, 2**63, 2**64 - 1)
PIECES = (
    *(struct.pack("<Q", n) for n in (*NUMBERS, MODULUS - 1, MODULUS, MODULUS + 1)),
    *(struct.pack("<I", n) for n in NUMBERS if n < 2**32),
    *(n.to_bytes(7, "little") for n in (0, 1, MODULUS - 1, MODULUS, 2**56 - 1)),
    struct.pack("<d", float("nan")),
    struct.pack("<d", float("inf")),
    bytes(20),
    bytes(32),
    b"\xff" * 32,
    b"2PMU",
    b"2PMA",
    b"2PMX",
)
TOKENS = (
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1", b"2", b"1.5", b"1.0", b"1e3", b"1E400",
    b"4294967296", b"9007199254740991", b"9007199254740992", b"-9007199254740993",
    b"18446744073709551616", b"9" * 400, b"NaN", b"Infinity", b'""', b'"0x"', b'"0"', b'" "',
    b'"0x' + b"00" * 20 + b'"', b'"0x' + b"00" * 32 + b'"', b'"0x' + b"ff" * 32 + b'"',
    b'"0x' + b"00" * 65 + b'"', b'"0x' + b"ff" * 65 + b'"', b'"0X' + b"AA" * 32 + b'"',
    b'"0x' + b"00" * 64 + b'1b"', b'"0x' + b"ff" * 32 + b"00" * 31 + b'011c"',
    b'"0x' + b"00" * 31 + b"05" + b"00" * 31 + b'011b"', b'"0x' + b"11" * 64 + b'1b"',
    b'"\\ud800"', b'"\\u0000"', b'"\x00"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\\u0041"',
    b'"\xc3\xa9"', b'"e\xcc\x81"', b'"' + b"x" * 3000 + b'"', b"[]", b"{}", b"[[]]", b'{"a":1}',
    b"[" * 400 + b"]" * 400, b"[" * 5000, b'{"":' * 300 + b"0" + b"}" * 300, b"", b",", b"/**/",
    b'"bfv"', b'"plaintext"', b'"one-time-key"', b'"shared-key"',
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**32, 2**53 - 1, 1.5, -0.5, 1e300, "", "0x", "x" * 300,
    "0x" + "00" * 20, "0x" + "00" * 32, "0x" + "ff" * 32, "0x" + "ff" * 65, "\u0000", "é", [], {},
    [[]], {"": 0}, [0] * 50,
)  # fmt: skip

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|true|false|null')


def flip_a_bit(source: random.Random, data: bytes, _other: bytes) -> bytes:
    if not data:
        return b"\0"
    position = int(source.random() * len(data))
    changed = bytearray(data)
    changed[position] ^= 1 << int(source.random() * 8)
    return bytes(changed)


def set_a_byte(source: random.Random, data: bytes, _other: bytes) -> bytes:
    position = int(source.random() * (len(data) + 1))
    return data[:position] + bytes([int(source.random() * 256)]) + data[position + 1 :]


def cut(source: random.Random, data: bytes, _other: bytes) -> bytes:
    return data[: int(source.random() * len(data))]


def lengthen(source: random.Random, data: bytes, _other: bytes) -> bytes:
    return data + source.randbytes(1 + int(source.random() ** 3 * 2000))


def insert(source: random.Random, data: bytes, _other: bytes) -> bytes:
    position = int(source.random() * (len(data) + 1))
    return data[:position] + source.choice(PIECES) + data[position:]


def drop_a_piece(source: random.Random, data: bytes, _other: bytes) -> bytes:
    start = int(source.random() * (len(data) + 1))
    return data[:start] + data[start + 1 + int(source.random() ** 2 * 64) :]


def repeat_a_piece(source: random.Random, data: bytes, _other: bytes) -> bytes:
    start = int(source.random() * (len(data) + 1))
    end = start + 1 + int(source.random() ** 2 * 200)
    return data[:end] + data[start:end] * (1 + int(source.random() ** 4 * 20)) + data[end:]


def overwrite(source: random.Random, data: bytes, _other: bytes) -> bytes:
    piece = source.choice(PIECES)
    position = int(source.random() * (len(data) + 1))
    return data[:position] + piece + data[position + len(piece) :]


def overwrite_in_the_header(source: random.Random, data: bytes, _other: bytes) -> bytes:
    piece = source.choice(PIECES)
    position = 4 * int(source.random() * 46)
    return data[:position] + piece + data[position + len(piece) :]


def splice(source: random.Random, data: bytes, other: bytes) -> bytes:
    at = int(source.random() * (len(data) + 1))
    return data[:at] + other[at if source.random() < 0.7 else int(source.random() * len(other)) :]


def borrow(source: random.Random, data: bytes, other: bytes) -> bytes:
    """Take the same stretch of the other input: headers of one, body of the other."""
    start = int(source.random() * (len(data) + 1))
    end = start + int(source.random() * 200)
    return data[:start] + other[start:end] + data[end:]


def replace_a_token(source: random.Random, data: bytes, other: bytes) -> bytes:
    found = _token_at(source, data)
    if found is None:
        return data
    piece = source.choice(TOKENS)
    if source.random() < 0.4:
        lent = _token_at(source, other)
        piece = piece if lent is None else other[lent[0] : lent[1]]
    return data[: found[0]] + piece + data[found[1] :]


def change_a_member(source: random.Random, data: bytes, other: bytes) -> bytes:
    """Change one element of the JSON value, and write it canonically again."""
    try:
        value, donor = json.loads(data), json.loads(other)
    except (ValueError, RecursionError):
        return data
    inner = _container(source, value)
    if inner is None:
        return data
    keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    key, draw = source.choice(keys), source.random()
    if draw < 0.4:
        inner[key] = source.choice(VALUES)
    elif draw < 0.55:
        del inner[key]
    elif draw < 0.7:
        lender = _container(source, donor)
        if lender is not None:
            inner[key] = source.choice(
                list(lender.values() if isinstance(lender, dict) else lender)
            )
    elif draw < 0.85 and isinstance(inner, list):
        inner.insert(key, inner[source.choice(keys)])
    elif isinstance(inner, dict):
        inner[source.choice(["", "extra", "node", "version"])] = inner[key]
    else:
        source.shuffle(inner)
    try:
        return canonical_bytes(value)
    except RecordError:
        return data


def _token_at(source: random.Random, data: bytes) -> tuple[int, int] | None:
    found = _TOKEN.search(data, int(source.random() * (len(data) + 1)))
    return None if found is None else found.span()


def _container(source: random.Random, value: object) -> "dict | list | None":
    """Return one of the non-empty lists and objects in a value, deep ones as likely as not."""
    if not isinstance(value, dict | list) or not value:
        return None
    while True:
        inside = [
            inner
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list) and inner
        ]
        if not inside or source.random() < 0.3:
            return value
        value = source.choice(inside)


BYTES: tuple[Change, ...] = (
    flip_a_bit, flip_a_bit, set_a_byte, cut, lengthen, insert, drop_a_piece, repeat_a_piece,
    overwrite, overwrite, splice, borrow,
)  # fmt: skip
FRAME: tuple[Change, ...] = (*BYTES, *[overwrite_in_the_header] * 4)
JSON: tuple[Change, ...] = (*BYTES, *[replace_a_token] * 6, *[change_a_member] * 8)


class Mutator:
    """Changes valid inputs, the same way for the same seed.

    Parameters
    ----------
    seed : int
    changes : sequence of Change
        What may be done to an input.
    """

    def __init__(self, seed: int, changes: Sequence[Change]) -> None:
        self._source = random.Random(seed)
        self._changes = changes

    def mutate(self, inputs: Sequence[bytes]) -> bytes:
        """Return one of `inputs` after one change, sometimes more; never as it was."""
        source = self._source
        start, other = source.choice(inputs), source.choice(inputs)
        data = start
        while data == start or source.random() < 0.25:
            data = source.choice(self._changes)(source, data, other)
        return data
