"""The backend that encrypts nothing: for comparison, with the very same integers."""

from typing import ClassVar

import numpy as np

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy.backend import Coefficients, Key
from twopm_flower.privacy.ciphertext import SEED_BYTES, Ciphertext, SeededCiphertext
from twopm_flower.privacy.parameters import RING_DEGREE, AdditiveParameters
from twopm_flower.privacy.residues import MODULUS, centred


class PlaintextBackend:
    """Carries the packed integers as residues that everybody can read.

    Parameters
    ----------
    parameters : AdditiveParameters
        Those of the backend ``plaintext``.
    """

    name: ClassVar[str] = "plaintext"
    needs_key: ClassVar[bool] = False

    def __init__(self, parameters: AdditiveParameters) -> None:
        self._bound = 1 << (parameters.plain_bits - 1)

    def generate_key(self) -> None:
        """Return None: there is no key."""
        return

    def encrypt(self, coefficients: Coefficients, key: Key) -> SeededCiphertext:
        """Return the coefficients modulo q, readable by anyone.

        Raises
        ------
        PrivacyError
            If a key is given, for the caller then believes that something is encrypted.
        """
        self._refuse(key)
        c0 = np.where(coefficients < 0, coefficients + MODULUS, coefficients).astype(np.uint64)
        return SeededCiphertext(c0, np.empty((0, SEED_BYTES), np.uint8))

    def expand(self, ciphertext: SeededCiphertext) -> Ciphertext:
        """Return the same residues; there is nothing to grow."""
        return ciphertext.with_c1(np.empty((0, RING_DEGREE), np.uint64))

    def decrypt(self, ciphertext: Ciphertext, key: Key) -> Coefficients:
        """Return the residues' signed representatives.

        Raises
        ------
        PrivacyError
            If a key is given, or the integers have more bits than the parameters allow.
        """
        self._refuse(key)
        coefficients = centred(ciphertext.c0)
        if int(np.abs(coefficients).max()) >= self._bound:
            raise PrivacyError("The opened integers exceed the agreed range.")
        return coefficients

    @staticmethod
    def _refuse(key: Key) -> None:
        if key is not None:
            raise PrivacyError(
                "The plaintext backend takes no key: it does not encrypt.",
                hint='Use backend "bfv" to keep updates secret.',
            )
