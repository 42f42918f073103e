"""Keys stay with their owner: in files, in boxes and in everything that is printed."""

import copy
import logging
import os
import pickle
import traceback

import pytest

from twopm_flower.errors import KeyCeremonyError
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey, seal

CANARY = b"\xca\xfe\xba\xbe canary of a secret \x00\xff"
SMALL_ORDER = "0x" + "00" * 32


def shared():
    return SharedKey("bfv", SecretBytes(CANARY))


def shows_the_canary(text):
    text = text.lower()
    return any(form in text for form in ("canary", CANARY.hex(), "cafebabe"))


@pytest.mark.parametrize("secret", [SecretBytes(CANARY), shared(), SealingKey.create()])
def test_a_secret_does_not_show_when_it_is_printed_formatted_or_logged(secret, caplog):
    private = secret._private.private_bytes_raw().hex() if isinstance(secret, SealingKey) else ""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("x").error("%s %r %s", secret, secret, {"key": [secret]})
    seen = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>200}",
        "%s" % secret,  # noqa: UP031
        f"{secret:>40}",
        caplog.text,
    ]
    assert not any(shows_the_canary(text) for text in seen)
    assert not any(private and private in text for text in seen)
    assert all("redacted" in text for text in seen)


@pytest.mark.parametrize("secret", [SecretBytes(CANARY), shared(), SealingKey.create()])
def test_a_secret_cannot_be_pickled_or_copied(secret):
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            take(secret)
    with pytest.raises(TypeError):
        pickle.dumps({"key": secret})


def test_the_secret_is_there_for_whoever_asks_for_it_by_name():
    assert SecretBytes(CANARY).reveal() == CANARY
    assert not hasattr(SecretBytes(CANARY), "__dict__")


def test_the_key_id_depends_on_backend_and_secret_only():
    assert shared().key_id == shared().key_id
    assert shared().key_id != SharedKey("bfw", SecretBytes(CANARY)).key_id
    assert shared().key_id != SharedKey("bfv", SecretBytes(CANARY + b"\0")).key_id
    assert SharedKey("a", SecretBytes(b"b")).key_id != SharedKey("ab", SecretBytes(b"")).key_id


def test_keys_survive_their_files(tmp_path):
    key, sealing = shared(), SealingKey.create()
    key.save(tmp_path / "deep" / "shared.json")
    sealing.save(tmp_path / "sealing.pem")
    again = SharedKey.load(tmp_path / "deep" / "shared.json")
    assert (again.key_id, again.secret.reveal()) == (key.key_id, CANARY)
    assert SealingKey.load(tmp_path / "sealing.pem").public == sealing.public
    for path in (tmp_path / "deep" / "shared.json", tmp_path / "sealing.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "sealing.pem",
        "shared.json",
    ]


def test_an_existing_key_is_never_overwritten(tmp_path):
    path = tmp_path / "key.pem"
    first = SealingKey.create()
    first.save(path)
    with pytest.raises(KeyCeremonyError, match="exists already"):
        SealingKey.create().save(path)
    assert SealingKey.load(path).public == first.public
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610, 0o777])
def test_a_key_file_that_others_can_use_is_refused(tmp_path, mode):
    path = tmp_path / "key.pem"
    SealingKey.create().save(path)
    path.chmod(mode)
    with pytest.raises(KeyCeremonyError, match=f"mode {mode:04o}.*chmod 600"):
        SealingKey.load(path)


def test_a_key_is_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        shared().save(tmp_path / "made" / "key")
    finally:
        os.umask(old)
    assert (tmp_path / "made" / "key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"not a key", b"[1]", b'{"backend":"bfv"}', b"\xff\xfe", b"x" * 2**21]
)
def test_files_that_hold_no_key_are_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (SharedKey.load, SealingKey.load):
        with pytest.raises(KeyCeremonyError):
            load(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(KeyCeremonyError, match="absent"):
        SharedKey.load(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyCeremonyError, match="cannot be made"):
        shared().save(tmp_path / "file" / "key")


def test_a_shared_key_has_one_written_form():
    data = shared().to_bytes()
    wrong = [
        data.replace(b"cafebabe", b"CAFEBABE"),
        data.replace(b"cafebabe", b"cafe babe"),
        data + b"\n",
        data.replace(b"v1", b"v2"),
        data.replace(b'"backend":"bfv"', b'"backend":7'),
        data.replace(b"{", b'{"a":1,', 1),
        data[:-1],
    ]
    for bad in wrong:
        assert bad != data
        with pytest.raises(KeyCeremonyError):
            SharedKey.from_bytes(bad)


def test_a_damaged_key_does_not_leak_into_the_error():
    damaged = shared().to_bytes()[:-1] + b", "
    with pytest.raises(KeyCeremonyError) as caught:
        SharedKey.from_bytes(damaged)
    assert caught.value.__context__ is None
    assert not shows_the_canary("".join(traceback.format_exception(caught.value)))


def test_another_kind_of_private_key_is_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = tmp_path / "key.pem"
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
        )
    )
    path.chmod(0o600)
    with pytest.raises(KeyCeremonyError, match="Ed25519"):
        SealingKey.load(path)


def test_what_is_sealed_opens_with_the_right_key_in_the_right_context_only():
    reader, other = SealingKey.create(), SealingKey.create()
    sealed = seal(reader.public, CANARY, b"here")
    assert CANARY not in sealed
    assert reader.open_sealed(sealed, b"here").reveal() == CANARY
    for key, data, context in (
        (other, sealed, b"here"),
        (reader, sealed, b"there"),
        (reader, sealed, b""),
        (reader, sealed[:-1], b"here"),
        (reader, sealed + b"\0", b"here"),
        (reader, b"", b"here"),
    ):
        with pytest.raises(KeyCeremonyError, match="does not open"):
            key.open_sealed(data, context)


def test_every_changed_byte_of_a_box_is_noticed():
    reader = SealingKey.create()
    sealed = seal(reader.public, b"payload", b"here")
    for position in range(len(sealed)):
        bad = bytearray(sealed)
        bad[position] ^= 1
        with pytest.raises(KeyCeremonyError):
            reader.open_sealed(bytes(bad), b"here")


def test_sealing_twice_shows_no_equality():
    public = SealingKey.create().public
    assert seal(public, b"same", b"") != seal(public, b"same", b"")


@pytest.mark.parametrize("public", ["", "0x12", "zz" * 32, "0x" + "11" * 33, SMALL_ORDER])
def test_a_public_key_that_is_none_is_refused(public):
    with pytest.raises(KeyCeremonyError, match="X25519 public key"):
        seal(public, b"x", b"")
    with pytest.raises(KeyCeremonyError, match="X25519 public key"):
        SealingKey.create().agree(public)


def test_two_nodes_agree_on_one_secret():
    a, b, c = (SealingKey.create() for _ in range(3))
    assert a.agree(b.public).reveal() == b.agree(a.public).reveal()
    assert a.agree(b.public).reveal() != a.agree(c.public).reveal()
