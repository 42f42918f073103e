"""What a homomorphic encryption backend must offer, and how one is found by its name."""

from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.keys import SharedKey
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.parameters import AdditiveParameters

ENTRY_POINTS = "twopm_flower.backends"

Coefficients = npt.NDArray[np.int64]
Key = SharedKey | OneTimeKey | None


class Backend(Protocol):
    """Encrypts coefficients so that adding residues modulo q adds the coefficients.

    A backend is one file that registers its class under the entry point group
    ``twopm_flower.backends`` and passes ``tests/privacy/test_backends_conform.py``.
    Coefficients are signed, of fewer than ``parameters.plain_bits`` bits.
    """

    name: str
    needs_key: bool

    def __init__(self, parameters: AdditiveParameters) -> None: ...

    def generate_key(self) -> SharedKey | None:
        """Return a fresh key for all nodes of a task; None where none is needed.

        It encrypts updates, except where each node draws a `OneTimeKey` for that.
        """

    def encrypt(self, coefficients: Coefficients, key: Key) -> SeededCiphertext:
        """Return a fresh encryption of `coefficients`, an int64 array of shape (C,)."""

    def expand(self, ciphertext: SeededCiphertext) -> Ciphertext:
        """Return the ciphertext with its uniform half grown from the seeds; needs no key."""

    def decrypt(self, ciphertext: Ciphertext, key: Key) -> Coefficients:
        """Return the coefficients of a ciphertext, or their sum for a sum of ciphertexts."""


def backend_names() -> tuple[str, ...]:
    """Return the names of all registered backends, sorted."""
    return tuple(sorted(entry_points(group=ENTRY_POINTS).names))


def load_backend(name: str) -> type[Backend]:
    """Return the backend class that is registered as `name`.

    Raises
    ------
    ConfigError
        If none is, or its module cannot be imported.
    """
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            found: type[Backend] = entry.load()
        except ImportError as error:
            raise ConfigError(
                f"The encryption backend {name!r} cannot be imported: {error}.",
                hint="Install twopm-flower again: pip install twopm-flower",
            ) from error
        return found
    raise ConfigError(
        f"No encryption backend is registered as {name!r}.",
        hint=f"Installed are: {', '.join(backend_names()) or 'none'}.",
    )


def open_backend(parameters: AdditiveParameters) -> Backend:
    """Return the backend that `parameters` name, ready for use."""
    return load_backend(parameters.backend)(parameters)
