"""Private predictions by TenSEAL's ``dot``: the reference that ours is measured against.

CKKS with degree 8192 and moduli of 60, 40 and 60 bits: with a smaller special prime, as some
tutorials take, results are off by up to 2. Galois keys are sent once for each requester.
Opened scores carry noise that depends on the key, so they must stay with the requester
(Li and Micciancio, "On the security of homomorphic encryption on approximate numbers", 2021).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tenseal

from twopm_flower.errors import PrivacyError
from twopm_flower.inference.base import Floats
from twopm_flower.privacy.keys import Unprintable

DEGREE: Final = 8192
MODULUS_BITS: Final = (60, 40, 60)
SCALE_BITS: Final = 40


class TensealKey(Unprintable):
    """What opens all answers to a client: its context, which holds its secret key.

    Parameters
    ----------
    context : tenseal.Context
    """

    def __init__(self, context: Any) -> None:
        self.context = context

    def __repr__(self) -> str:
        return "TensealKey(<redacted>)"


class TensealClient:
    """Encrypts one row at a time under a key of its own."""

    def __init__(self) -> None:
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(MODULUS_BITS)
        )
        context.global_scale = 2.0**SCALE_BITS
        context.generate_galois_keys()
        self._key = TensealKey(context)

    def setup(self) -> bytes:
        """Return the public context and evaluation keys, for a service."""
        return bytes(self._key.context.serialize(save_secret_key=False))

    def encrypt(self, rows: npt.NDArray[Any], /) -> tuple[bytes, TensealKey]:
        """Return the encryption of one row.

        Raises
        ------
        PrivacyError
            If there is not exactly one row.
        """
        if rows.ndim != 2 or len(rows) != 1:
            raise PrivacyError(f"TenSEAL's dot takes one row, not an array of shape {rows.shape}.")
        vector = tenseal.ckks_vector(self._key.context, rows[0].tolist())
        return bytes(vector.serialize()), self._key

    def open(self, response: bytes, key: TensealKey, /) -> Floats:
        """Return the score, shape (1, 1)."""
        vector = tenseal.ckks_vector_from(key.context, response)
        return np.array([vector.decrypt()], np.float64)


class TensealService:
    """Answers requests of one client, by a model of one class with public weights.

    Only for measuring: it gives whatever it is sent to native code.

    Parameters
    ----------
    weight : ndarray of float, shape (1, d)
    bias : ndarray of float, shape (1,)
    setup : bytes
        The client's evaluation keys.
    """

    def __init__(self, weight: npt.NDArray[Any], bias: npt.NDArray[Any], setup: bytes) -> None:
        if len(weight) != 1:
            raise PrivacyError(f"The reference has one class, not {len(weight)}.")
        self._weight, self._bias = weight[0].astype(float).tolist(), [float(bias[0])]
        self._context = tenseal.context_from(setup)
        self._setup_bytes = len(setup)

    @property
    def setup_bytes(self) -> int:
        """How long the public context with its Galois keys is."""
        return self._setup_bytes

    def answer(self, request: bytes, /) -> bytes:
        """Return the encrypted score."""
        vector = tenseal.ckks_vector_from(self._context, request)
        return bytes((vector.dot(self._weight) + self._bias).serialize())
