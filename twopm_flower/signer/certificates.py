"""Certificates for mutual TLS between a signer and who asks it: one authority, two leaves."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twopm_flower.errors import ConfigError

AUTHORITY, SIGNER, CLIENT = "ca.pem", "signer", "client"
_CLOCK_SKEW: Final = timedelta(minutes=5)


def create_certificates(folder: Path, hosts: tuple[str, ...], *, days: int) -> None:
    """Make ``ca.pem``, and ``signer`` and ``client`` as ``.pem`` and ``.key`` (0600) each.

    The authority's key is forgotten, so nobody can sign a third certificate with it.

    Parameters
    ----------
    folder : Path
    hosts : tuple of str
        Names and addresses under which the signer is reached.
    days : int
        How long they are valid.

    Raises
    ------
    ConfigError
        The folder holds some already.
    """
    if (folder / AUTHORITY).exists():
        raise ConfigError(f"{folder} holds certificates already", hint="Name another folder.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    start = datetime.now(UTC) - _CLOCK_SKEW
    authority_key = ec.generate_private_key(ec.SECP256R1())
    name = _name("twopm-flower signer authority")
    authority = (
        _builder(name, name, authority_key, start, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    for leaf, purpose in (
        (SIGNER, ExtendedKeyUsageOID.SERVER_AUTH),
        (CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(f"twopm-flower {leaf}"), name, key, start, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
        )
        if leaf == SIGNER:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        (folder / f"{leaf}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        _write_key(folder / f"{leaf}.key", key)
    (folder / AUTHORITY).write_bytes(authority.public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + timedelta(days=days),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
