"""A signer that keeps its key in this process, read from a file that only its owner may read."""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from eth_abi.exceptions import EncodingError
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.records.typed_data import typed_digest

MAX_KEY_FILE_BYTES = 16 * 1024


class LocalSigner:
    """Signs with a key held in memory.

    Parameters
    ----------
    key : bytes
        The 32-byte secp256k1 private key. Neither `repr` nor any error shows it.

    Raises
    ------
    ConfigError
        Not a private key.
    """

    def __init__(self, key: bytes) -> None:
        self._key = open_key(key)

    @classmethod
    def from_file(cls, path: Path, *, password_file: Path | None = None) -> Self:
        """Read a key file: 64 hexadecimal digits, or an encrypted keystore (version 3).

        Parameters
        ----------
        path : Path
            The key file.
        password_file : Path, optional
            The file whose first line opens an encrypted keystore.

        Raises
        ------
        ConfigError
            Missing, readable by others, or not a key; the password does not open it; or a
            password is named and the key is not encrypted.
        """
        return cls(read_key(path, password_file=password_file))

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        return str(self._key.public_key.to_checksum_address())

    def sign_transaction(self, fields: Mapping[str, Any]) -> bytes:
        """Sign a transaction; see :class:`~twopm_flower.signer.base.Signer`."""
        from eth_account import Account  # noqa: PLC0415  # slow to import, and nodes need it not

        try:
            signed = Account.sign_transaction(dict(fields), self._key)
            return bytes(signed.raw_transaction)
        except (TypeError, ValueError) as error:
            raise RecordError(f"the transaction cannot be signed: {error}") from error

    def sign_typed_data(
        self,
        domain: dict[str, Any],
        types: dict[str, list[dict[str, str]]],
        primary_type: str,
        message: dict[str, Any],
    ) -> bytes:
        """Sign typed data; see :class:`~twopm_flower.signer.base.Signer`.

        Raises
        ------
        RecordError
            The message does not have exactly the fields of its type, or a fixed-size
            field has another size: the encoder below would pad or drop it silently.
        """
        _require_exact_fields(types, primary_type, message)
        try:
            digest = typed_digest(domain, types, primary_type, message)
            if digest is None:
                digest = _digest_of_any_types(domain, types, message)
        except (TypeError, ValueError, EncodingError) as error:
            raise RecordError(f"{primary_type} cannot be signed: {error}") from error
        return sign_digest(self._key, digest)

    def __repr__(self) -> str:
        return f"LocalSigner(address={self.address!r}, key=<redacted>)"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a signer is not serialised: its key stays where it is")


def open_key(key: bytes) -> PrivateKey:
    """Return eth-keys' form of a key.

    Raises
    ------
    ConfigError
        Not a private key.
    """
    opened: PrivateKey | None = None
    # eth-keys' messages may quote the key, so none of them travels on with our own error.
    with suppress(Exception):
        opened = PrivateKey(key)
    if opened is None:
        raise ConfigError("the key is not a secp256k1 private key of 32 bytes")
    return opened


def sign_digest(key: PrivateKey, digest: bytes) -> bytes:
    """Return 65 bytes ``r || s || v``, low s, v 27 or 28, over a 32-byte digest."""
    signature = key.sign_msg_hash(digest)
    r, s = signature.r.to_bytes(32, "big"), signature.s.to_bytes(32, "big")
    return bytes(r + s + bytes([27 + signature.v]))


def read_key(path: Path, *, password_file: Path | None = None) -> bytes:
    """Return the 32 bytes of a secp256k1 key file; see :meth:`LocalSigner.from_file`."""
    text = read_private(path, "key file")
    if text.lstrip().startswith("{"):
        return _decrypt(path, text, password_file)
    if password_file is not None:
        raise ConfigError(
            f"the password file {password_file} is set, but {path} is no encrypted keystore",
            hint="Encrypt the key, or take the password file out of the settings.",
        )
    digits = text.strip().removeprefix("0x")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"{path} holds neither 64 hexadecimal digits nor an encrypted keystore",
            hint="Point the setting at the right file, or create a key.",
        )
    return key


def create_key_file(path: Path, *, password_file: Path | None = None) -> LocalSigner:
    """Create a random key and store it, readable by the owner alone.

    Parameters
    ----------
    path : Path
        Where the key goes; its folder is created.
    password_file : Path, optional
        The file whose first line encrypts the key, as a keystore of version 3 (scrypt and
        AES-128-CTR, https://ethereum.org/developers/docs/data-structures-and-encoding/web3-secret-storage/).

    Returns
    -------
    LocalSigner
        The signer with the new key.

    Raises
    ------
    ConfigError
        Something stands there already: a key is never overwritten. Or the password file
        cannot be used.
    """
    password = None if password_file is None else read_password(password_file)
    key = secrets.token_bytes(32)
    signer = LocalSigner(key)
    text = f"0x{key.hex()}" if password is None else _encrypted(key, password)
    write_new_private(path, text)
    return signer


def write_new_private(path: Path, text: str) -> None:
    """Write a line into a file that did not exist, readable by the owner alone.

    Raises
    ------
    ConfigError
        Something stands there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and linked into place: a crash leaves a whole key or none.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            raise ConfigError(
                f"{path} exists already and is not overwritten",
                hint="Choose another path, or move the old key away.",
            ) from None
    finally:
        draft.unlink(missing_ok=True)


def read_password(path: Path) -> str:
    """Return the first line of a password file.

    Raises
    ------
    ConfigError
        Missing, empty, readable by others, or somebody else's.
    """
    password = read_private(path, "password file").split("\n", 1)[0].rstrip("\r")
    if os.name == "posix" and path.stat().st_uid != os.geteuid():
        raise ConfigError(
            f"the password file {path} belongs to another user",
            hint="Whoever owns it can replace it: use a file of your own.",
        )
    if not password:
        raise ConfigError(f"the first line of the password file {path} is empty")
    return password


def read_private(path: Path, what: str) -> str:
    """Return the text of a file that nobody else may read.

    Parameters
    ----------
    path : Path
    what : str
        What it should be, for errors: ``"key file"``.

    Raises
    ------
    ConfigError
        Missing, readable by others, too large, or not text.
    """
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise ConfigError(
                f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
                hint=f"Run: chmod 600 {path}",
            )
        if path.stat().st_size > MAX_KEY_FILE_BYTES:
            raise ConfigError(f"{path} is too large for a {what}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file, so it is no {what}") from None


def _digest_of_any_types(
    domain: dict[str, Any], types: dict[str, list[dict[str, str]]], message: dict[str, Any]
) -> bytes:
    from eth_account.messages import encode_typed_data  # noqa: PLC0415  # slow, and rarely needed

    signable = encode_typed_data(domain, types, message)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def _encrypted(key: bytes, password: str) -> str:
    from eth_account import Account  # noqa: PLC0415  # slow to import, and rarely needed

    return json.dumps(Account.encrypt(key, password))


def _decrypt(path: Path, text: str, password_file: Path | None) -> bytes:
    if password_file is None:
        raise ConfigError(
            f"{path} is an encrypted keystore and no password file is set",
            hint="Name the file with its password: node.identity_password_file or "
            "coordinator.key_password_file (docs/configuration.md).",
        )
    password = read_password(password_file)
    from eth_account import Account  # noqa: PLC0415  # slow to import, and rarely needed

    try:
        return bytes(Account.decrypt(json.loads(text), password))
    except (ValueError, KeyError, TypeError, NotImplementedError):
        raise ConfigError(
            f"the password in {password_file} does not open {path}, or that is no keystore"
        ) from None


def _require_exact_fields(
    types: dict[str, list[dict[str, str]]], primary_type: str, message: dict[str, Any]
) -> None:
    if primary_type not in types:
        raise RecordError(f"the typed data do not define their own type {primary_type}")
    fields = {field["name"]: field["type"] for field in types[primary_type]}
    if fields.keys() != message.keys():
        unexpected = sorted(fields.keys() ^ message.keys())
        raise RecordError(f"{primary_type} lacks or does not know the fields {unexpected}")
    for name, kind in fields.items():
        value = message[name]
        if kind == "bytes32" and not (isinstance(value, bytes) and len(value) == 32):
            raise RecordError(f"{primary_type}.{name} is not exactly 32 bytes")
