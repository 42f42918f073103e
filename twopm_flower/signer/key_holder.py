"""Who holds the key of a signing service, and signs the digests that its policy allowed."""

from pathlib import Path
from typing import Any, Protocol

from twopm_flower.signer.keystore import open_key, read_key, sign_digest


class KeyHolder(Protocol):
    """Holds one secp256k1 key: a key file, or a service that signs digests.

    A key management service that answers in DER fits here: its signature is brought to low s,
    and v is whichever of 27 and 28 recovers `address`.
    """

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        ...

    def unsafe_sign_digest(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest that the policy allowed; nobody else may call this.

        Returns
        -------
        bytes
            65 bytes ``r || s || v``, low s, v 27 or 28. The same digest may give the same
            signature (RFC 6979) or another one.
        """
        ...


class LocalKeyHolder:
    """Holds a key in this process's memory; neither `repr` nor any error shows it.

    Parameters
    ----------
    key : bytes
        The 32-byte private key.

    Raises
    ------
    ConfigError
        Not a private key.
    """

    def __init__(self, key: bytes) -> None:
        self._key = open_key(key)

    @classmethod
    def from_file(cls, path: Path, *, password_file: Path | None = None) -> "LocalKeyHolder":
        """Read a key file, as :meth:`LocalSigner.from_file` does."""
        return cls(read_key(path, password_file=password_file))

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        return str(self._key.public_key.to_checksum_address())

    def unsafe_sign_digest(self, digest: bytes) -> bytes:
        """Sign a digest; see :class:`KeyHolder`."""
        return sign_digest(self._key, digest)

    def __repr__(self) -> str:
        return f"LocalKeyHolder(address={self.address!r}, key=<redacted>)"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a key holder is not serialised: its key stays where it is")
