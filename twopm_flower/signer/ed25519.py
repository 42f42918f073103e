"""What signs for a chain of the Solana family: an ed25519 key, and messages parsed by its owner."""

import secrets
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from twopm_flower.errors import ConfigError
from twopm_flower.signer.keystore import read_private, write_new_private

SEED_BYTES = 32


class SolanaSigner(Protocol):
    """Holds one ed25519 key, or reaches somebody who does."""

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key, which are the account's address."""
        ...

    def sign_solana_message(self, message: bytes) -> bytes:
        """Sign a serialised Solana message and return the 64 bytes of the signature.

        Parameters
        ----------
        message : bytes
            A legacy or version 0 message, as it stands in a transaction
            (https://solana.com/docs/core/transactions).
        """
        ...


class LocalSolanaSigner:
    """Signs with a seed held in memory.

    Parameters
    ----------
    seed : bytes
        The 32-byte seed of RFC 8032. Neither `repr` nor any error shows it.

    Raises
    ------
    ConfigError
        Not 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ConfigError(f"an ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def from_file(cls, path: Path, *, password_file: Path | None = None) -> Self:
        """Read a key file: 64 hexadecimal digits, nothing else.

        Parameters
        ----------
        path : Path
            The key file.
        password_file : Path, optional
            Has to be None: such a file is not encrypted. It stands here because other kinds
            of keys can be, and whoever names one should not believe that it did anything.

        Raises
        ------
        ConfigError
            Missing, readable by others, or not a seed; or a password file is named.
        """
        if password_file is not None:
            raise ConfigError(
                f"{password_file} is set, but a file with an ed25519 seed is not encrypted",
                hint="Take the password file out of the settings; protect the key's disk instead.",
            )
        digits = read_private(path, "key file").strip().removeprefix("0x")
        try:
            seed = bytes.fromhex(digits)
        except ValueError:
            seed = b""
        if len(seed) != SEED_BYTES:
            raise ConfigError(
                f"{path} does not hold the 64 hexadecimal digits of an ed25519 seed",
                hint="Point the setting at the right file, or create a key.",
            )
        return cls(seed)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def sign_solana_message(self, message: bytes) -> bytes:
        """Sign a message; see :class:`SolanaSigner`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"LocalSolanaSigner(public_key={self.public_key.hex()!r}, key=<redacted>)"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a signer is not serialised: its key stays where it is")


def create_solana_key_file(path: Path) -> LocalSolanaSigner:
    """Create a random ed25519 key and store it, readable by the owner alone.

    Raises
    ------
    ConfigError
        Something stands there already: a key is never overwritten.
    """
    seed = secrets.token_bytes(SEED_BYTES)
    signer = LocalSolanaSigner(seed)
    write_new_private(path, f"0x{seed.hex()}")
    return signer


def is_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether 64 bytes are a signature over a message by a 32-byte public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
