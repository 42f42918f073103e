"""Microsoft SEAL 4's serialised objects, read strictly and written from a template.

The layout follows ``Serialization::SEALHeader`` and the ``save_members`` of SEAL 4.x
(native/src/seal/{serialization,ciphertext,plaintext,dynarray,randomgen}): a header of 16
bytes, then the members, where a nested object carries a header of its own. TenSEAL's
wrapper always compresses what it saves with zstandard; what is written here never is.

Only residues and seeds are parameters of what is written, so no byte that a peer chose
reaches SEAL's parser as structure.
"""

import struct
import threading
from typing import Any

import numpy as np
import zstandard

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy.ciphertext import SEED_BYTES
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import Residues

SEAL_VERSION = (4, 3)

_MAGIC = 0xA15E
_HEADER = struct.Struct("<HBBBBHQ")
_UNCOMPRESSED, _ZSTD = 0, 2
_BLAKE2XB = 1
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
_PLAINTEXT = struct.Struct("<32sQd")
_MAX_OBJECT_BYTES = 1 << 16
_NO_PARMS_ID = bytes(32)


def write_plaintext(coefficients: Residues) -> bytes:
    """Return a plaintext polynomial with the given coefficients, for ``Plaintext.load``."""
    members = _PLAINTEXT.pack(_NO_PARMS_ID, coefficients.size, 1.0)
    return _object(members + _array(coefficients))


def read_plaintext(data: bytes) -> Residues:
    """Return the coefficients of a saved plaintext; SEAL leaves out leading zeros.

    Raises
    ------
    PrivacyError
        If the bytes are not a BFV plaintext of this ring.
    """
    reader = _Reader(_open(data))
    parms_id, count, scale = reader.take(_PLAINTEXT)
    if parms_id != _NO_PARMS_ID or count > RING_DEGREE or scale != 1.0:
        raise _unexpected("a plaintext", f"count {count}, scale {scale}")
    coefficients = reader.array(count)
    reader.end()
    return coefficients


def write_secret_key(residues: Residues, parms_id: bytes) -> bytes:
    """Return a secret key from its residues in NTT form, for ``SecretKey.load``."""
    return _object(_PLAINTEXT.pack(parms_id, residues.size, 1.0) + _array(residues))


def write_ciphertext(c0: Residues, c1: Residues, parms_id: bytes, *, ntt: bool = False) -> bytes:
    """Return a ciphertext of one row from its residues, for ``Ciphertext.load``."""
    return _object(_ciphertext_members(parms_id, ntt) + _array(np.concatenate([c0, c1])))


def read_ciphertext(
    data: bytes, parms_id: bytes, *, ntt: bool = False
) -> tuple[Residues, Residues]:
    """Return c0 and c1 of a saved ciphertext of one row.

    Raises
    ------
    PrivacyError
        If the bytes are not a ciphertext of this ring, in full.
    """
    reader = _Reader(_open(data))
    _check_ciphertext(reader, parms_id, ntt)
    residues = reader.array(2 * RING_DEGREE)
    reader.end()
    return residues[:RING_DEGREE], residues[RING_DEGREE:]


def write_seeded(seed: bytes, parms_id: bytes) -> bytes:
    """Return a ciphertext of one row whose c0 is 0 and whose c1 grows from `seed`."""
    zeros = _array(np.zeros(RING_DEGREE, np.uint64))
    generator = _header(1 + SEED_BYTES) + bytes([_BLAKE2XB]) + seed
    return _object(_ciphertext_members(parms_id, False) + zeros + generator)


def read_seeded(data: bytes, parms_id: bytes) -> tuple[Residues, bytes]:
    """Return c0 and the seed of c1 of a saved symmetric ciphertext of one row.

    Raises
    ------
    PrivacyError
        If the bytes are not a ciphertext of this ring with a seed.
    """
    reader = _Reader(_open(data))
    _check_ciphertext(reader, parms_id, ntt=False)
    c0 = reader.array(RING_DEGREE)
    reader.header(1 + SEED_BYTES)
    (kind, seed) = reader.take(struct.Struct(f"<B{SEED_BYTES}s"))
    if kind != _BLAKE2XB:
        raise _unexpected("a seeded ciphertext", f"generator {kind}")
    reader.end()
    return c0, seed


def _header(length: int) -> bytes:
    return _HEADER.pack(
        _MAGIC, _HEADER.size, *SEAL_VERSION, _UNCOMPRESSED, 0, _HEADER.size + length
    )


def _object(members: bytes) -> bytes:
    return _header(len(members)) + members


def _array(values: Residues) -> bytes:
    data = values.astype("<u8", copy=False).tobytes()
    return _header(8 + len(data)) + values.size.to_bytes(8, "little") + data


def _ciphertext_members(parms_id: bytes, ntt: bool) -> bytes:
    return _CIPHERTEXT.pack(parms_id, ntt, 2, RING_DEGREE, 1, 1.0, 1)


def _open(data: bytes) -> bytes:
    """Return the members of a saved object, decompressed."""
    if len(data) < _HEADER.size:
        raise _unexpected("an object", f"{len(data)} bytes")
    magic, size, major, minor, compression, reserved, length = _HEADER.unpack_from(data)
    found = (magic, size, (major, minor), compression, reserved, length)
    if found != (_MAGIC, _HEADER.size, SEAL_VERSION, _ZSTD, 0, len(data)):
        raise _unexpected("an object", f"header {data[: _HEADER.size].hex()}")
    # SEAL writes no content size into the frame, so the bound on the output is given here.
    decompressor = _decompressors.own.decompressobj()
    try:
        members = decompressor.decompress(data[_HEADER.size :])
    except zstandard.ZstdError as error:
        raise _unexpected("an object", str(error)) from error
    if not decompressor.eof or decompressor.unused_data or len(members) > _MAX_OBJECT_BYTES:
        raise _unexpected("an object", f"{len(members)} bytes after decompression")
    return members


class _Decompressors(threading.local):
    """One for each thread: making one takes as long as using it, and none may be shared."""

    def __init__(self) -> None:
        self.own = zstandard.ZstdDecompressor()


_decompressors = _Decompressors()


def _check_ciphertext(reader: "_Reader", parms_id: bytes, ntt: bool) -> None:
    members = reader.raw(_CIPHERTEXT.size)
    if members != _ciphertext_members(parms_id, ntt):
        raise _unexpected("a ciphertext", f"members {members.hex()}")


def _unexpected(what: str, detail: str) -> PrivacyError:
    return PrivacyError(
        f"TenSEAL saved {what} in another form than SEAL {'.'.join(map(str, SEAL_VERSION))}'s: "
        f"{detail}.",
        hint="Install the version that is pinned: pip install tenseal==0.3.18",
    )


class _Reader:
    """Takes members off the front of decompressed bytes, never past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def raw(self, length: int) -> bytes:
        piece = self._data[self._offset : self._offset + length]
        if len(piece) != length:
            raise _unexpected("an object", f"it ends at byte {len(self._data)}")
        self._offset += length
        return piece

    def take(self, members: struct.Struct) -> tuple[Any, ...]:
        return members.unpack(self.raw(members.size))

    def header(self, length: int) -> None:
        found = self.raw(_HEADER.size)
        if found != _header(length):
            raise _unexpected("a member", f"header {found.hex()}")

    def array(self, count: int) -> Residues:
        self.header(8 + 8 * count)
        (found,) = self.take(struct.Struct("<Q"))
        if found != count:
            raise _unexpected("an array", f"{found} values instead of {count}")
        return np.frombuffer(self.raw(8 * count), "<u8").astype(np.uint64, copy=False)

    def end(self) -> None:
        if self._offset != len(self._data):
            raise _unexpected("an object", f"{len(self._data) - self._offset} bytes are left over")
