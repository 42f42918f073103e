"""The uniform half of seeded ciphertexts, grown from the seeds bit for bit as SEAL does.

SEAL alone can do this, one row at a time, through a file that it compresses. Compiled here,
it takes a sixth of the time; importing and compiling takes as long as SEAL takes for a
thousand rows.

The stream of a seed is that of ``Blake2xbPRNG`` (native/src/seal/randomgen.cpp): buffers of
4096 bytes, the i-th of which is BLAKE2Xb (Aumasson et al., "BLAKE2X", 2016) of the counter
i under the seed as key. ``sample_poly_uniform`` (native/src/seal/util/rlwe.cpp) reduces its
words modulo q and draws those of the last, incomplete multiple of q (one in 2**37) again,
from what follows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.privacy.compiled import compiled
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, Residues

_IV = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    np.uint64,
)
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    np.uint8,
)

_BUFFER_BYTES = 4096
_HASH_BYTES, _SEED_WORDS = 64, 8
_BUFFER_WORDS = _BUFFER_BYTES // 8
# Parameter blocks of BLAKE2b (RFC 7693, section 2.5; BLAKE2X, section 2), word by word:
# the hash of a counter under a key, and that of one block of a buffer.
_ROOT_0 = np.uint64(_HASH_BYTES | 64 << 8 | 1 << 16 | 1 << 24)
_NODE_0 = np.uint64(_HASH_BYTES | _HASH_BYTES << 32)
_XOF = np.uint64(_BUFFER_BYTES << 32)
_NODE_2 = np.uint64(_HASH_BYTES << 8)
_Q = np.uint64(MODULUS)
_LIMIT = np.uint64((1 << 64) - 1 - ((1 << 64) - 1) % MODULUS - 1)
_ALL = np.uint64((1 << 64) - 1)


@compiled
def _rotated(word: Any, bits: Any) -> Any:
    return (word >> np.uint64(bits)) | (word << np.uint64(64 - bits))


@compiled
def _mixed(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:  # noqa: PLR0917 (RFC 7693)
    a = a + b + x
    d = _rotated(d ^ a, 32)
    c = c + d
    b = _rotated(b ^ c, 24)
    a = a + b + y
    d = _rotated(d ^ a, 16)
    c = c + d
    b = _rotated(b ^ c, 63)
    return a, b, c, d


@compiled
def _compress(h: Any, m: Any, count: Any, final: Any) -> None:
    """Replace the chaining value `h` by its compression with the message block `m`."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11 = _IV[0], _IV[1], _IV[2], _IV[3]
    v12, v13, v14, v15 = _IV[4] ^ count, _IV[5], _IV[6] ^ final, _IV[7]
    for r in range(12):
        s = _SIGMA[r]
        v0, v4, v8, v12 = _mixed(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mixed(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mixed(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mixed(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mixed(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mixed(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mixed(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mixed(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0] ^= v0 ^ v8
    h[1] ^= v1 ^ v9
    h[2] ^= v2 ^ v10
    h[3] ^= v3 ^ v11
    h[4] ^= v4 ^ v12
    h[5] ^= v5 ^ v13
    h[6] ^= v6 ^ v14
    h[7] ^= v7 ^ v15


@compiled
def _fill_buffer(seed: Any, counter: Any, h: Any, m: Any, out: Any) -> None:
    """Write the first words of a buffer to `out`, whole blocks of 8."""
    # Two blocks of the root, the seed as key and the counter, then those of the output.
    for block in range(-2, out.size // 8):
        if block != -1:
            for i in range(8):
                h[i] = _IV[i]
            h[0] ^= _ROOT_0 if block < 0 else _NODE_0
            h[1] ^= _XOF if block < 0 else _XOF | np.uint64(block)
            h[2] ^= np.uint64(0) if block < 0 else _NODE_2
        if block < 0:
            for i in range(8):
                m[i] = seed[i] if block == -2 else np.uint64(0)
            if block == -1:
                m[0] = counter
        length = 128 if block == -2 else 136 if block == -1 else _HASH_BYTES
        _compress(h, m, np.uint64(length), np.uint64(0) if block == -2 else _ALL)
        for i in range(8):
            if block == -1:
                m[i] = h[i]
            elif block >= 0:
                out[8 * block + i] = h[i]


@compiled
def _fill_rows(seeds: Any, rows: Any, limit: Any) -> None:
    """Write the words of each seed below `limit` modulo q, the others drawn again."""
    h, m = np.zeros(8, np.uint64), np.zeros(16, np.uint64)
    spare = np.empty(_BUFFER_WORDS, np.uint64)
    for i in range(len(rows)):
        row, seed = rows[i], seeds[i]
        counter = row.size // _BUFFER_WORDS
        for buffer in range(counter):
            start = buffer * _BUFFER_WORDS
            _fill_buffer(seed, np.uint64(buffer), h, m, row[start : start + _BUFFER_WORDS])
        used = filled = 0
        for j in range(row.size):
            word = row[j]
            while word >= limit:
                if used == filled:
                    if filled == _BUFFER_WORDS:
                        counter += 1
                        used = filled = 0
                    filled = 8 if filled == 0 else _BUFFER_WORDS
                    _fill_buffer(seed, np.uint64(counter), h, m, spare[:filled])
                word = spare[used]
                used += 1
            row[j] = word % _Q


def grow(seeds: npt.NDArray[np.uint8]) -> Residues:
    """Return the uniform polynomial of each seed.

    Parameters
    ----------
    seeds : ndarray of uint8, shape (rows, 64)

    Returns
    -------
    ndarray of uint64, shape (rows, 2048)
        Residues modulo q.
    """
    # A copy, so that alignment and writability are always those that was compiled for.
    words = np.array(seeds).view("<u8").astype(np.uint64, copy=False)
    rows = np.empty((len(seeds), RING_DEGREE), np.uint64)
    _fill_rows(words, rows, _LIMIT)
    return rows
