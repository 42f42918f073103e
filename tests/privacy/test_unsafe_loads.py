"""Each input that TenSEAL loads and should not, and its like in our frames: refused in Python.

The first test of each row shows what TenSEAL does with it, so that the others are not about
dangers that are none. What the server and the nodes make of them, over whole messages, is in
``tests/federated/test_unsafe_ciphertexts.py``.
"""

import math
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal
from privacy_factories import a_ciphertext, a_context, a_layout, a_seeded, bfv

from twopm_flower.errors import BindingError, FrameError
from twopm_flower.privacy import seal_format
from twopm_flower.privacy.backend import open_backend
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.frame import (
    AGGREGATE_HEADER_BYTES,
    UPDATE_HEADER_BYTES,
    encode_aggregate,
    encode_update,
    parse_aggregate,
    parse_update,
)
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.scratch import ScratchFile
from twopm_flower.verify.expanded import encode_expanded, parse_expanded

P, LAYOUT = bfv(), a_layout(41)
BACKEND = open_backend(P)
CONTEXT = a_context(P, LAYOUT)
SEEDED, TOTAL = a_seeded(P, LAYOUT), a_ciphertext(P, LAYOUT)
FRAMES = {
    "update": (encode_update(CONTEXT, SEEDED), parse_update, UPDATE_HEADER_BYTES),
    "aggregate": (encode_aggregate(CONTEXT, TOTAL), parse_aggregate, AGGREGATE_HEADER_BYTES),
    "expanded": (encode_expanded(CONTEXT, TOTAL), parse_expanded, UPDATE_HEADER_BYTES),
}
KINDS = sorted(FRAMES)
KEY_ID = {"update": 72, "aggregate": 52, "expanded": 72}
SEEDS = 64
every_kind = pytest.mark.parametrize("kind", KINDS)


def refused(kind, data, message=None, error=FrameError):
    with pytest.raises(error, match=message):
        FRAMES[kind][1](data, CONTEXT, P, LAYOUT)


def patched(data, offset, piece):
    return data[:offset] + piece + data[offset + len(piece) :]


def counts(kind):
    """Return the frame's bytes, and where its rows, coefficients and length stand."""
    data, _, header = FRAMES[kind]
    return data, header - 16, header - 12, header - 8


def digest(kind, data):
    """Return the digest that is signed for what the frame holds."""
    value = FRAMES[kind][1](data, CONTEXT, P, LAYOUT)
    if kind == "update":
        value = BACKEND.expand(value)
    return value.aggregate_digest(CONTEXT) if kind == "aggregate" else value.digest(CONTEXT)


def tenseal(what):
    """Return how TenSEAL's process ended, and what it printed."""
    script = Path(__file__).with_name("tenseal_loads.py")
    done = subprocess.run(
        (sys.executable, script, what), capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout.strip()


def seal_loads(c0, c1):
    """Tell whether SEAL takes a ciphertext with these residues in its first coefficient."""
    rows = [np.zeros(RING_DEGREE, np.uint64), np.zeros(RING_DEGREE, np.uint64)]
    rows[0][0], rows[1][0] = c0, c1
    with ScratchFile() as scratch:
        scratch.write(seal_format.write_ciphertext(*rows, BACKEND._parms_id))
        try:
            seal.Ciphertext().load(BACKEND._context, scratch.path)
        except (ValueError, RuntimeError):
            return False
    return True


# A 13-byte vector with sizes and no ciphertext


def test_tenseal_crashes_on_sizes_without_a_ciphertext():
    assert tenseal("sizes_without_ciphertext")[0] == -signal.SIGSEGV


@every_kind
def test_sizes_without_a_ciphertext_are_refused(kind):
    data, _, _, length = counts(kind)
    header = data[: FRAMES[kind][2]]
    refused(kind, header, "carries 0; its counts take")
    refused(kind, patched(header, length, bytes(8)), "announces 0 bytes and carries 0")
    refused(
        kind,
        bytes.fromhex("0a02a900") + struct.pack("<Bd", 0x19, 2.0**40),
        "this one has 13|starts with",
    )


# Sizes of 1,000,000 with one ciphertext


def test_tenseal_decrypts_a_million_values_of_one_ciphertext():
    assert tenseal("a_million_sizes") == (0, "1000000")


@every_kind
def test_a_million_values_of_one_ciphertext_are_refused(kind):
    data, rows, coefficients, length = counts(kind)
    million = struct.pack("<I", 1_000_000)
    refused(kind, patched(data, coefficients, million), "announces 1000000 coefficients in 1 rows")
    refused(kind, patched(data, rows, million), "in 1000000 rows; the layout takes 22 in 1")
    refused(kind, patched(data, length, struct.pack("<Q", 2**40)), "announces 1099511627776 bytes")


@every_kind
def test_a_frame_of_a_million_values_is_refused_where_41_are_agreed(kind):
    large = a_layout(1_000_000)
    encode = {"update": encode_update, "aggregate": encode_aggregate, "expanded": encode_expanded}
    value = a_seeded(P, large) if kind == "update" else a_ciphertext(P, large)
    refused(kind, encode[kind](CONTEXT, value), "announces 500001 coefficients in 245 rows")


# A ciphertext under another key with the same parameters


def test_tenseal_decrypts_what_another_key_encrypted_to_garbage():
    code, largest = tenseal("another_key")
    assert code == 0
    assert float(largest) > 1e6, "1.5 was encrypted"


@every_kind
def test_a_ciphertext_that_names_another_key_is_refused(kind):
    other = patched(FRAMES[kind][0], KEY_ID[kind], b"\x44" * 32)
    refused(kind, other, "encrypted under key 0x4444", BindingError)


def test_a_ciphertext_that_lies_about_its_key_opens_to_noise_and_not_to_what_it_holds():
    # The id cannot be checked against c0. It is signed, so the lie has a name, and a sum with
    # noise in it is none that honest nodes add up to.
    ours, others = BACKEND.generate_key(), BACKEND.generate_key()
    values = np.full(22, 7, np.int64)
    frame = encode_update(CONTEXT, BACKEND.encrypt(values, others))
    seeded = parse_update(frame, CONTEXT, P, LAYOUT)
    opened = BACKEND.decrypt(BACKEND.expand(seeded), ours)
    assert np.abs(opened).max() > 2 ** (P.plain_bits - 4)


# A transparent ciphertext, a scale that is no number, residues from q - 1 on


def test_seal_takes_a_ciphertext_that_hides_nothing_and_residues_up_to_q_minus_1():
    assert seal_loads(5, 0)
    assert seal_loads(MODULUS - 1, MODULUS - 1)
    assert not seal_loads(MODULUS, 1)


def test_tenseal_takes_a_scale_that_is_not_a_number():
    code, value = tenseal("scale_nan")
    assert code == 0
    assert math.isfinite(float(value))


@pytest.mark.parametrize("kind", ["aggregate", "expanded"])
def test_a_transparent_ciphertext_is_refused(kind):
    encode = {"aggregate": encode_aggregate, "expanded": encode_expanded}[kind]
    data = encode(CONTEXT, Ciphertext(TOTAL.c0, np.zeros_like(TOTAL.c1)))
    refused(kind, data, "Row 0 is transparent: its c1 is 0")


def test_an_update_cannot_be_transparent_for_it_carries_seeds():
    for byte in (0, 255):
        seeds = np.full((1, SEEDS), byte, np.uint8)
        frame = encode_update(CONTEXT, SeededCiphertext(SEEDED.c0, seeds))
        grown = BACKEND.expand(parse_update(frame, CONTEXT, P, LAYOUT)).c1
        assert np.unique(grown).size == RING_DEGREE
        assert int(grown.max()) < MODULUS


@every_kind
def test_a_scale_has_no_place_in_a_frame(kind):
    data, _, header = FRAMES[kind]
    nan = struct.pack("<d", math.nan)
    for position in (header - 16, header, len(data)):
        refused(kind, data[:position] + nan + data[position:], "announces|carries")
    for position in range(0, header - 7, 4):
        refused(kind, patched(data, position, nan))


@every_kind
@pytest.mark.parametrize("value", [MODULUS, MODULUS + 1, 2**54, 2**55, 2**56 - 1])
def test_a_residue_from_q_on_is_refused(kind, value):
    data, _, header = FRAMES[kind]
    first = header + (SEEDS if kind == "update" else 0)
    for index in (0, 21):
        changed = patched(data, first + 7 * index, value.to_bytes(7, "little"))
        refused(kind, changed, rf"c0\[{index}\] is {value}, not below the modulus")


@pytest.mark.parametrize("kind", ["aggregate", "expanded"])
def test_a_residue_of_c1_from_q_on_is_refused(kind):
    data = FRAMES[kind][0]
    changed = patched(data, len(data) - 7, MODULUS.to_bytes(7, "little"))
    refused(kind, changed, rf"c1\[2047\] is {MODULUS}, not below the modulus")


@every_kind
def test_a_residue_of_q_minus_1_is_valid_and_not_what_was_signed(kind):
    data, _, header = FRAMES[kind]
    first = header + (SEEDS if kind == "update" else 0)
    changed = patched(data, first, (MODULUS - 1).to_bytes(7, "little"))
    assert digest(kind, changed) != digest(kind, data)


# Single bit flips


def test_tenseal_takes_most_single_bit_flips():
    code, loaded = tenseal("bit_flips")
    assert code == 0
    assert int(loaded) > 50, "of a hundred"


@every_kind
def test_a_bit_flip_in_the_header_is_refused(kind):
    data, _, header = FRAMES[kind]
    for position in range(header):
        for bit in range(8):
            refused(kind, patched(data, position, bytes([data[position] ^ 1 << bit])))


@every_kind
def test_a_bit_flip_in_the_body_is_refused_or_not_what_was_signed(kind):
    data, parse, header = FRAMES[kind]
    honest = digest(kind, data)
    step = max(1, (len(data) - header) // 60)
    for position in range(header, len(data), step):
        for bit in (0, 7):
            changed = patched(data, position, bytes([data[position] ^ 1 << bit]))
            try:
                parse(changed, CONTEXT, P, LAYOUT)
            except FrameError:
                continue
            assert digest(kind, changed) != honest


# Empty bytes


def test_tenseal_takes_no_bytes_for_a_vector():
    assert tenseal("empty") == (0, "0")


@every_kind
def test_no_bytes_are_refused(kind):
    refused(kind, b"", "this one has 0|starts with b''")


# Where all this happens


def test_reading_a_frame_never_loads_native_code():
    code = (
        "import sys, twopm_flower.privacy.frame, twopm_flower.verify.expanded\n"
        "raise SystemExit(any(m.split('.')[0] in ('tenseal', 'numba') for m in sys.modules))"
    )
    assert subprocess.run((sys.executable, "-c", code), check=False).returncode == 0
