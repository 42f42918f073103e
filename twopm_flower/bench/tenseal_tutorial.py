"""The design ``tutorial``: TenSEAL as tutorials on federated learning use it.

One CKKS vector per array in a context of ring degree 8192 with moduli of 60, 40 and 40 bits
and scale 2**40, serialised without the context, which every party has; the server loads and
adds. Each update is weighted before encryption and the mean divided after decryption, which
spares the multiplication of ciphertexts that some tutorials have.
"""

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import tenseal as ts

from twopm_flower.bench.standalone import updates

RING_DEGREE = 8192
MODULUS_BITS = (60, 40, 40)
SCALE_BITS = 40

_LENGTH = struct.Struct("<Q")


class TutorialDesign:
    """CKKS with one key for all nodes; the server's context is public.

    Parameters
    ----------
    size : int
        Parameters of the model.
    """

    def __init__(self, size: int) -> None:
        self._layers = updates.layers(size)
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            poly_modulus_degree=RING_DEGREE,
            coeff_mod_bit_sizes=list(MODULUS_BITS),
        )
        self._context.global_scale = 2**SCALE_BITS
        self._server = ts.context_from(self._context.serialize(save_secret_key=False))
        self.start()

    def encrypt(self, node: int, update: updates.Arrays) -> bytes:
        """Encrypt and serialise array by array."""
        weight = float(updates.samples(node))
        return _framed(
            ts.ckks_vector(self._context, array * weight).serialize() for array in update.values()
        )

    def start(self) -> None:
        """Forget the sums."""
        self._sums: list[ts.CKKSVector] = []
        self._rows = 0

    def add(self, node: int, upload: bytes) -> None:
        """Load array by array and add."""
        loaded = [ts.ckks_vector_from(self._server, data) for data in _unframed(upload)]
        self._rows += updates.samples(node)
        if self._sums:
            for total, vector in zip(self._sums, loaded, strict=True):
                total.add_(vector)
        else:
            self._sums = loaded

    def finish(self) -> bytes:
        """Serialise the sums."""
        return _framed(total.serialize() for total in self._sums)

    def open(self, download: bytes) -> updates.Means:
        """Load, decrypt and divide."""
        found = {}
        for name, data in zip(self._layers, _unframed(download), strict=True):
            values = ts.ckks_vector_from(self._context, data).decrypt()
            found[name] = np.array(values) / self._rows
        return found

    def error_bound(self) -> None:
        """Return None: CKKS is approximate."""

    def shares(self) -> None:
        """Return None: nothing travels beside an update."""


def open_design(_name: str, size: int, _nodes: int) -> TutorialDesign:
    """Return the design for models of `size` parameters."""
    return TutorialDesign(size)


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _unframed(data: bytes) -> Iterator[bytes]:
    view, start = memoryview(data), 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        yield bytes(view[start : start + length])
        start += length
