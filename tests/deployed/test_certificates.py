import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from twopm_flower.node.certificates import (
    ServerCertificates,
    create_server_certificates,
    create_supernode_key,
)


def shake_hands(server: ServerCertificates, authority: Path, name: str) -> None:
    """Connect a TLS client that believes `authority` to a server with these certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    client_context = ssl.create_default_context(cafile=authority)
    server_end, client_end = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(server_end, server_side=True).close()
        except ssl.SSLError:
            server_end.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client_context.wrap_socket(client_end, server_hostname=name).close()
    finally:
        client_end.close()
        thread.join()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_client_that_believes_the_authority_accepts_the_server(tmp_path: Path, name: str) -> None:
    server = create_server_certificates(tmp_path)
    shake_hands(server, server.authority, name)


def test_a_client_that_believes_another_authority_refuses_it(tmp_path: Path) -> None:
    server = create_server_certificates(tmp_path / "one")
    other = create_server_certificates(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, other.authority, "localhost")


def test_a_server_under_another_name_is_refused(tmp_path: Path) -> None:
    server = create_server_certificates(tmp_path, ("example.org",))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, server.authority, "localhost")


def test_certificates_end_after_a_week(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    server = create_server_certificates(tmp_path, now=now)
    certificate = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    assert certificate.not_valid_before_utc <= now
    assert timedelta(days=6) < certificate.not_valid_after_utc - now <= timedelta(days=7)


def test_nobody_but_the_user_reads_keys(tmp_path: Path) -> None:
    server = create_server_certificates(tmp_path)
    private, _ = create_supernode_key(tmp_path)
    for file in (server.key, private):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("ca*.key"))


def test_a_supernode_key_is_what_flower_reads(tmp_path: Path) -> None:
    private, public = create_supernode_key(tmp_path, "alice")
    key = load_ssh_private_key(private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert load_ssh_public_key(public.read_bytes()) == key.public_key()
