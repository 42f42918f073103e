"""Noise, secrets and uniform residues of ring learning with errors, from AES-256-CTR.

FrodoKEM expands its public matrix by AES as well.
`cryptography` runs it on the processor's own AES instructions.
"""

import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from twopm_flower.privacy.parameters import ONE_TIME_NOISE, RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, RESIDUE_BITS, Residues
from twopm_flower.records.digest import tagged_digest

BINOMIAL = ONE_TIME_NOISE
"""eta: secrets and noise are differences of two binomial variables of so many fair coins,
so they are at most 42 in magnitude, with variance 21."""

PUBLIC_SEED_BYTES = 32
ONE_TIME_ROWS = "one-time-a"
"""What the tags start with under which rows of one-time keys are grown."""

Words = npt.NDArray[np.uint64]

_BLOCK_BYTES = 16
_ROW_BLOCKS = RING_DEGREE * 8 // _BLOCK_BYTES
_RESIDUE_MASK = np.uint64((1 << RESIDUE_BITS) - 1)
_ZEROS = bytes(1 << 16)


class WordStream:
    """The key stream of AES-256 in counter mode, as 64-bit words.

    Parameters
    ----------
    key : bytes
        32 bytes.
    first_block : int, default 0
        Where to start, in blocks of two words.
    """

    def __init__(self, key: bytes, first_block: int = 0) -> None:
        counter = first_block.to_bytes(_BLOCK_BYTES, "big")
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()

    def take(self, count: int) -> Words:
        """Return the next `count` words; the key stream's bytes are little-endian."""
        words = np.empty(count, "<u8")
        out = words.view(np.uint8).data
        for start in range(0, len(out), len(_ZEROS)):
            piece = out[start : start + len(_ZEROS)]
            self._encryptor.update_into(memoryview(_ZEROS)[: len(piece)], piece)
        return words.astype(np.uint64, copy=False)


def fresh_stream() -> WordStream:
    """Return a stream under a key that the operating system drew just now."""
    return WordStream(os.urandom(32))


def centred_binomial(
    stream: WordStream, count: int, coins: int = BINOMIAL
) -> npt.NDArray[np.int64]:
    """Return `count` samples of the centred binomial distribution of `coins`.

    Each takes two words of the stream: the ones among the low `coins` bits of the first, less
    those of the second.

    Parameters
    ----------
    stream : WordStream
    count : int
    coins : int, default `BINOMIAL`
        eta, at most 64: samples are at most so large in magnitude, with variance ``eta / 2``.

    Returns
    -------
    ndarray of int64, shape (count,)
    """
    words = stream.take(2 * count)
    words &= np.uint64((1 << coins) - 1)
    ones = np.bitwise_count(words).astype(np.int64)
    return ones[::2] - ones[1::2]


def uniform_rows(seed: bytes, first_row: int, count: int, purpose: str = ONE_TIME_ROWS) -> Residues:
    """Return rows of uniform residues that everybody grows from a public seed.

    Row r, column j is the word ``2048 r + j`` of the key stream under the key
    ``tagged_digest("one-time-a/v1", seed)``, cut to its low 54 bits. Where these are not
    below the modulus, which happens once in ``2**37`` words, they are replaced by the low
    54 bits of the next word that is below it of a stream of the row's own, whose key is
    ``tagged_digest("one-time-a-spare/v1", seed, r as 8 bytes, little-endian)``.

    Parameters
    ----------
    seed : bytes
        `PUBLIC_SEED_BYTES` bytes.
    first_row, count : int
        Rows ``first_row`` up to, and without, ``first_row + count``.
    purpose : str, default "one-time-a"
        Stands in place of ``one-time-a`` in both tags: rows of other purposes are other rows.

    Returns
    -------
    ndarray of uint64, shape (count, 2048)
    """
    stream = WordStream(_key(tagged_digest(f"{purpose}/v1", seed)), first_row * _ROW_BLOCKS)
    words = stream.take(count * RING_DEGREE)
    words &= _RESIDUE_MASK
    rows = words.reshape(count, RING_DEGREE)
    if count and int(words.max()) >= MODULUS:
        for index in np.flatnonzero((rows >= MODULUS).any(axis=1)).tolist():
            _replace(rows[index], seed, first_row + index, purpose)
    return rows


def _replace(row: Residues, seed: bytes, number: int, purpose: str) -> None:
    key = _key(tagged_digest(f"{purpose}-spare/v1", seed, number.to_bytes(8, "little")))
    stream = WordStream(key)
    for column in np.flatnonzero(row >= MODULUS).tolist():
        while int(row[column]) >= MODULUS:
            row[column] = stream.take(1)[0] & _RESIDUE_MASK


def _key(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("0x"))
