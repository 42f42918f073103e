"""From settings to a signer: one in another process, by its URL."""

from pathlib import Path
from typing import Literal, overload
from urllib.parse import urlsplit

from twopm_flower.config import SignerSettings
from twopm_flower.errors import ConfigError
from twopm_flower.signer.remote import RemoteSigner, RemoteSolanaSigner
from twopm_flower.signer.solana_message import from_base58
from twopm_flower.signer.transport import TlsTransport, Transport, UnixTransport


@overload
def open_signer(
    settings: SignerSettings, home: Path, *, key_kind: Literal["secp256k1"] = "secp256k1"
) -> RemoteSigner: ...


@overload
def open_signer(
    settings: SignerSettings, home: Path, *, key_kind: Literal["ed25519"]
) -> RemoteSolanaSigner: ...


def open_signer(
    settings: SignerSettings,
    home: Path,
    *,
    key_kind: Literal["secp256k1", "ed25519"] = "secp256k1",
) -> RemoteSigner | RemoteSolanaSigner:
    """Return a signer that another process is; it is asked when first used.

    Parameters
    ----------
    settings : SignerSettings
    home : Path
        What paths in the settings are relative to.
    key_kind : {"secp256k1", "ed25519"}
        The kind of key that the chain's accounts have.

    Raises
    ------
    ConfigError
        The URL or the TLS files cannot be used.
    """
    transport = _transport(settings, home)
    if key_kind == "ed25519":
        key = None if settings.account is None else from_base58(settings.account)
        return RemoteSolanaSigner(transport, public_key=key)
    return RemoteSigner(transport, address=settings.account)


def _transport(settings: SignerSettings, home: Path) -> Transport:
    parts = urlsplit(settings.url)
    files = (settings.tls_cert, settings.tls_key, settings.tls_ca)
    if parts.scheme == "unix":
        if any(files):
            raise ConfigError("a signer behind a unix socket needs no TLS files")
        return UnixTransport(Path(parts.path), timeout_s=settings.timeout_s)
    certificate, key, authority = (None if file is None else home / file for file in files)
    if parts.hostname is None or certificate is None or key is None or authority is None:
        raise ConfigError(
            f"the signer at {settings.url} needs tls_cert, tls_key and tls_ca",
            hint="docs/signer.md shows how to make them.",
        )
    return TlsTransport(
        parts.hostname,
        parts.port or 443,
        certificate=certificate,
        key=key,
        authority=authority,
        timeout_s=settings.timeout_s,
    )
