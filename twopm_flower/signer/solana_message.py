"""A Solana message taken apart: who pays, which programs are called, and with which bytes.

Legacy messages and version 0 are read (https://solana.com/docs/core/transactions); address
lookup tables are not, because they hide from a signer which accounts are touched.
"""

from dataclasses import dataclass
from typing import Final

from twopm_flower.errors import RecordError

MAX_MESSAGE_BYTES: Final = 1232 - 1 - 64
KEY_BYTES: Final = 32
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True)
class Instruction:
    """One instruction: its program, its accounts and its data, keys as 32 bytes."""

    program: bytes
    accounts: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class SolanaMessage:
    """What a transaction's signatures are over.

    Attributes
    ----------
    version : int or None
        0, or None for a legacy message.
    keys : tuple of bytes
        All accounts; the first `signers` of them have to sign, and the first of all pays.
    signers : int
    recent_blockhash : bytes
    instructions : tuple of Instruction
    """

    version: int | None
    keys: tuple[bytes, ...]
    signers: int
    recent_blockhash: bytes
    instructions: tuple[Instruction, ...]

    @property
    def fee_payer(self) -> bytes:
        """The account that pays."""
        return self.keys[0]


def parse_message(data: bytes) -> SolanaMessage:
    """Read a serialised message.

    Raises
    ------
    RecordError
        Not a message, in another version, or with address lookup tables.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RecordError(f"a message has at most {MAX_MESSAGE_BYTES} bytes, not {len(data)}")
    reader = _Reader(data)
    version = None
    if reader.peek() & 0x80:
        version = reader.byte() & 0x7F
        if version != 0:
            raise RecordError(f"messages of version {version} are not known")
    signers, read_only_signers, read_only_others = reader.byte(), reader.byte(), reader.byte()
    keys = tuple(reader.take(KEY_BYTES) for _ in reader.counted())
    if not 0 < signers <= len(keys) or read_only_signers >= signers:
        raise RecordError(f"the message has {len(keys)} accounts and {signers} signers")
    if read_only_others > len(keys) - signers or len(set(keys)) != len(keys):
        raise RecordError("the message's accounts contradict its header")
    blockhash = reader.take(32)
    instructions = tuple(_instruction(reader, keys) for _ in reader.counted())
    if version is not None and list(reader.counted()):
        raise RecordError("the message has address lookup tables, which hide its accounts")
    reader.end()
    return SolanaMessage(version, keys, signers, blockhash, instructions)


def base58(data: bytes) -> str:
    """Return bytes in base 58, as Solana shows keys."""
    number, digits = int.from_bytes(data), ""
    while number:
        number, place = divmod(number, 58)
        digits = _ALPHABET[place] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def from_base58(text: str, *, size: int = KEY_BYTES) -> bytes:
    """Return the bytes that base 58 stands for.

    Raises
    ------
    RecordError
        Not base 58, or not `size` bytes.
    """
    number = 0
    if len(text) > 2 * size:
        raise RecordError(f"{text[:60]!r}… is not {size} bytes in base 58")
    for sign in text:
        place = _ALPHABET.find(sign)
        if place < 0:
            raise RecordError(f"{text[:60]!r} is not base 58")
        number = number * 58 + place
    zeros = len(text) - len(text.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    if len(data) != size:
        raise RecordError(f"{text[:60]!r} is {len(data)} bytes in base 58, not {size}")
    return data


def _instruction(reader: "_Reader", keys: tuple[bytes, ...]) -> Instruction:
    def key() -> bytes:
        place = reader.byte()
        if place >= len(keys):
            raise RecordError(f"an instruction names account {place}, and there are {len(keys)}")
        return keys[place]

    program = key()
    accounts = tuple(key() for _ in reader.counted())
    return Instruction(program, accounts, reader.take(len(reader.counted())))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, count: int) -> bytes:
        end = self._place + count
        if end > len(self._data):
            raise RecordError("the message is cut off")
        taken, self._place = self._data[self._place : end], end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def peek(self) -> int:
        if self._place >= len(self._data):
            raise RecordError("the message is cut off")
        return self._data[self._place]

    def counted(self) -> range:
        """Read a "compact-u16" and return so many steps; each number has one form only."""
        value = 0
        for place in range(3):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * place)
            if not byte & 0x80:
                if byte == 0 and place:
                    break
                return range(value)
        raise RecordError("a length in the message is not in its one form")

    def end(self) -> None:
        if self._place != len(self._data):
            raise RecordError(f"{len(self._data) - self._place} bytes follow the message")
