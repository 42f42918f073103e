"""Secrets of a node: the key that updates are encrypted with, and the one that opens boxes."""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from twopm_flower.errors import KeyCeremonyError, RecordError
from twopm_flower.privacy.secret_files import read_secret_file, write_secret_file
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.digest import tagged_digest

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_SHARED_KEY_KIND = "twopm-flower shared key v1"


class Unprintable:
    """Refuses the ways by which a secret leaves a process unnoticed."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} holds a secret and is never pickled or copied")

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return repr(self)


class SecretBytes(Unprintable):
    """Bytes that do not show in logs, errors, pickles or comparisons by hand.

    Parameters
    ----------
    value : bytes
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def __repr__(self) -> str:
        return f"SecretBytes(<{len(self._value)} bytes, redacted>)"

    def reveal(self) -> bytes:
        """Return the bytes. Whoever calls this answers for where they go."""
        return self._value


class SharedKey(Unprintable):
    """The secret that all nodes of a task share in the trust mode ``shared-key``.

    Parameters
    ----------
    backend : str
        The backend that the secret belongs to.
    secret : SecretBytes
    """

    def __init__(self, backend: str, secret: SecretBytes) -> None:
        if not isinstance(backend, str):
            raise TypeError(f"the backend of a key is a name, not {type(backend).__name__}")
        self.backend = backend
        self.secret = secret

    def __repr__(self) -> str:
        return f"SharedKey({self.backend}, key_id={self.key_id}, <redacted>)"

    @cached_property
    def key_id(self) -> str:
        """The public name of the key: a digest of its secret, the same on every node."""
        return tagged_digest("shared-key/v1", self.backend.encode(), b"\0", self.secret.reveal())

    def to_bytes(self) -> bytes:
        """Return the key as canonical JSON, secret and all, for a file or a box."""
        return canonical_bytes(
            {
                "kind": _SHARED_KEY_KIND,
                "backend": self.backend,
                "secret": self.secret.reveal().hex(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises
        ------
        KeyCeremonyError
            If the bytes are anything else; they are not shown.
        """
        key = cls._read(data)
        if key is None or key.to_bytes() != data:
            raise KeyCeremonyError(
                "The bytes are not a shared key of twopm-flower.",
                hint="`twopm keys` writes and reads such files.",
            )
        return key

    @classmethod
    def _read(cls, data: bytes) -> Self | None:
        # No error leaves this function, for it would carry the secret into a traceback.
        try:
            record = parse_canonical(data, what="a shared key")
            return cls(record["backend"], SecretBytes(bytes.fromhex(record["secret"])))
        except (RecordError, KeyError, TypeError, ValueError):
            return None

    def save(self, path: Path) -> None:
        """Write the key to a new file with mode 0600."""
        write_secret_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file, refusing one that others may read."""
        return cls.from_bytes(read_secret_file(path))


class SealingKey(Unprintable):
    """A node's X25519 key: what is sealed to its public half, only this node opens.

    Make one with `create` or `load`.
    """

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private

    def __repr__(self) -> str:
        return f"SealingKey(public={self.public}, <redacted>)"

    @classmethod
    def create(cls) -> Self:
        """Return a fresh key."""
        return cls(X25519PrivateKey.generate())

    @cached_property
    def public(self) -> str:
        """The public half: ``0x`` and 64 hexadecimal digits."""
        return "0x" + self._private.public_key().public_bytes_raw().hex()

    def save(self, path: Path) -> None:
        """Write the key to a new PEM file (PKCS #8) with mode 0600."""
        data = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_secret_file(path, data)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM file, refusing one that others may read.

        Raises
        ------
        KeyCeremonyError
            If the file cannot be read, is not for its owner alone, or holds no X25519 key.
        """
        data = read_secret_file(path)
        try:
            private = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise KeyCeremonyError(f"{path} is not a private key in PEM form.") from error
        if not isinstance(private, X25519PrivateKey):
            raise KeyCeremonyError(f"{path} holds a {type(private).__name__}, not an X25519 key.")
        return cls(private)

    def open_sealed(self, sealed: bytes, context: bytes) -> SecretBytes:
        """Return what was sealed to this key in `context`.

        Raises
        ------
        KeyCeremonyError
            If it was sealed to another key, in another context, or was altered.
        """
        try:
            return SecretBytes(_SUITE.decrypt(sealed, self._private, info=context))
        except (InvalidTag, ValueError) as error:
            raise KeyCeremonyError(
                f"The box of {len(sealed)} bytes does not open with the key {self.public}.",
                hint="It was sealed to another key, for another task or roster, or was altered: "
                "ask the dealer to seal it again.",
            ) from error

    def agree(self, peer_public: str) -> SecretBytes:
        """Return the X25519 secret that this key shares with a peer's.

        Raises
        ------
        KeyCeremonyError
            If the peer's public key is malformed or of small order.
        """
        return SecretBytes(self._private.exchange(_public_key(peer_public)))


def seal(reader_public: str, payload: bytes, context: bytes) -> bytes:
    """Return `payload` sealed to the key `reader_public`, to be opened in `context` only.

    HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
    ChaCha20Poly1305; `context` is its ``info``. It does not say who sealed: whoever sends
    a box signs its digest.

    Raises
    ------
    KeyCeremonyError
        If the public key is malformed or of small order.
    """
    return _SUITE.encrypt(payload, _public_key(reader_public), info=context)


def check_public_key(public: str) -> None:
    """Check that something can be sealed to a public key.

    Raises
    ------
    KeyCeremonyError
        If it is malformed or of small order.
    """
    _public_key(public)


def _public_key(public: str) -> X25519PublicKey:
    try:
        key = X25519PublicKey.from_public_bytes(bytes.fromhex(public.removeprefix("0x")))
        # A point of small order has no secret in common with anybody: the exchange says so.
        X25519PrivateKey.generate().exchange(key)
    except ValueError as error:
        raise KeyCeremonyError(
            f"{public!r} is not a usable X25519 public key.",
            hint="It is 0x and 64 hexadecimal digits, as `twopm keys` shows it.",
        ) from error
    return key
