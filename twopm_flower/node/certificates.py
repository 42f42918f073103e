"""Certificates for a deployment on one machine: a CA, a server certificate, SuperNode keys.

Made in Python, so that neither openssl nor ssh-keygen has to be installed. They are made
afresh for every deployment and are good for a week. For a deployment across machines, use the
certificates of your own authority; ``docs/deploy.md`` shows where they go.
"""

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=7)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class ServerCertificates:
    """Files of a server: its certificate, its key, and the authority that vouches for it."""

    authority: Path
    certificate: Path
    key: Path


def create_server_certificates(
    folder: Path,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    *,
    now: datetime | None = None,
) -> ServerCertificates:
    """Make an authority that signs once, and the server certificate that it signs.

    The authority's key is forgotten, so that nobody can sign a second certificate with it.

    Parameters
    ----------
    folder : Path
        Receives ``ca.pem``, ``server.pem`` and ``server.key`` (0600).
    hosts : tuple of str
        Names and IP addresses under which the server is reached.
    now : datetime, optional
        Start of the validity; the present by default.

    Returns
    -------
    ServerCertificates
        The files written.

    References
    ----------
    RFC 5280, sections 4.2.1.6 (names), 4.2.1.9 (basic constraints) and 4.2.1.12 (key usage).
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    start = (now or datetime.now(UTC)) - _CLOCK_SKEW
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("twopm-flower deployment authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), start)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _builder(_name(hosts[0]), authority_name, server_key.public_key(), start)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    files = ServerCertificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    files.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(server.public_bytes(Encoding.PEM))
    _write_secret(
        files.key,
        server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return files


def create_supernode_key(folder: Path, name: str = "supernode") -> tuple[Path, Path]:
    """Make the key with which a SuperNode shows the SuperLink who it is.

    Parameters
    ----------
    folder : Path
        Receives ``<name>`` (0600) and ``<name>.pub``, in OpenSSH's formats as Flower reads them.
    name : str
        The file's name.

    Returns
    -------
    tuple of Path
        The private and the public file: an EC key on P-384, as
        ``ssh-keygen -t ecdsa -b 384`` makes it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / name, folder / f"{name}.pub"
    _write_secret(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return private, public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + VALID_FOR)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
