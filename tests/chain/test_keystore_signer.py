import json
import os
import pickle
import secrets
import traceback

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.records.statements import Domain, Registration, sign
from twopm_flower.signer.keystore import LocalSigner, create_key_file

DOMAIN = Domain(chain_id=5, verifying_contract="0x" + "00" * 20)
TYPES = {"Note": [{"name": "digest", "type": "bytes32"}, {"name": "count", "type": "uint64"}]}


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def everything_said(error):
    return "".join(traceback.format_exception(error.value)) + repr(vars(error.value))


def test_a_created_key_is_readable_by_its_owner_only_and_opens_again(tmp_path):
    path = tmp_path / "keys" / "account.key"
    signer = create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert LocalSigner.from_file(path).address == signer.address
    assert [entry.name for entry in path.parent.iterdir()] == ["account.key"]


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "account.key"
    signer = create_key_file(path)
    with pytest.raises(ConfigError, match="exists already"):
        create_key_file(path)
    assert LocalSigner.from_file(path).address == signer.address
    assert [entry.name for entry in tmp_path.iterdir()] == ["account.key"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX notion")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_reach_is_refused_with_the_command_that_mends_it(tmp_path, mode):
    path = private(tmp_path / "account.key", "11" * 32)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        LocalSigner.from_file(path)


def test_an_encrypted_keystore_opens_with_its_password_only(tmp_path):
    key = secrets.token_bytes(32)
    # Few iterations: the strength of the password is not what is tested.
    keystore = Account.encrypt(key, "open sesame", kdf="pbkdf2", iterations=2)
    path = private(tmp_path / "keystore.json", json.dumps(keystore))
    right = private(tmp_path / "right", "open sesame\n")
    wrong = private(tmp_path / "wrong", "open barley\n")
    assert LocalSigner.from_file(path, password_file=right).address == LocalSigner(key).address
    with pytest.raises(ConfigError, match="does not open"):
        LocalSigner.from_file(path, password_file=wrong)
    with pytest.raises(ConfigError, match="password file"):
        LocalSigner.from_file(path)


def test_a_key_created_with_a_password_is_an_encrypted_keystore(tmp_path):
    password = private(tmp_path / "password", "open sesame\r\nand nothing of this\n")
    path = tmp_path / "identity.key"
    signer = create_key_file(path, password_file=password)
    stored = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert stored["crypto"]["kdf"] == "scrypt"
    # At least the cost that Ethereum clients choose where a person waits for it.
    assert stored["crypto"]["kdfparams"]["n"] >= 2**18
    assert "sesame" not in path.read_text()
    key = Account.decrypt(stored, "open sesame")
    assert LocalSigner(key).address == signer.address
    assert key.hex() not in path.read_text()
    assert LocalSigner.from_file(path, password_file=password).address == signer.address


def test_a_password_is_not_set_for_a_key_that_is_not_encrypted(tmp_path):
    path = private(tmp_path / "account.key", "11" * 32)
    password = private(tmp_path / "password", "canary")
    with pytest.raises(ConfigError, match="no encrypted keystore") as error:
        LocalSigner.from_file(path, password_file=password)
    assert "canary" not in everything_said(error)
    assert "11" * 32 not in everything_said(error)


@pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX notion")
def test_a_password_file_that_others_can_read_is_refused(tmp_path):
    password = private(tmp_path / "password", "canary")
    password.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600") as error:
        create_key_file(tmp_path / "identity.key", password_file=password)
    assert "canary" not in everything_said(error)
    assert not (tmp_path / "identity.key").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_a_password_file_of_another_user_is_refused(tmp_path):
    password = private(tmp_path / "password", "canary")
    os.chown(password, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        create_key_file(tmp_path / "identity.key", password_file=password)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("\nsecond line", "is empty"), ("x" * 20_000, "too large for a password")],
)
def test_a_password_file_without_a_password_is_refused(tmp_path, text, words):
    password = private(tmp_path / "password", text)
    with pytest.raises(ConfigError, match=words):
        create_key_file(tmp_path / "identity.key", password_file=password)


def test_a_missing_password_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"password file .*nowhere"):
        create_key_file(tmp_path / "identity.key", password_file=tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "0x", "11" * 31, "11" * 33, "zz" * 32, "{}", '{"a": 1}'])
def test_a_file_without_a_key_is_refused_and_not_quoted(tmp_path, text):
    password = private(tmp_path / "password", "canary")
    path = private(tmp_path / "account.key", text)
    with pytest.raises(ConfigError) as error:
        LocalSigner.from_file(path, password_file=password)
    assert "canary" not in everything_said(error)


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        LocalSigner.from_file(tmp_path / "nowhere")


def test_a_key_appears_in_no_representation_and_in_no_error():
    key = secrets.token_bytes(32)
    signer = LocalSigner(key)
    assert key.hex() not in repr(signer) + str(signer)
    with pytest.raises(TypeError):
        pickle.dumps(signer)
    beyond_the_group = b"\xff" * 32
    with pytest.raises(ConfigError) as error:
        LocalSigner(beyond_the_group)
    assert "ff" * 16 not in everything_said(error).lower()


def test_a_statement_signed_here_is_the_signers():
    signer = LocalSigner(secrets.token_bytes(32))
    statement = Registration(node=signer.address, sealing_key="0x" + "01" * 32, nonce=0, deadline=9)
    assert sign(statement, signer, DOMAIN).node == signer.address


@pytest.mark.parametrize(
    "message",
    [
        {"digest": b"\1" * 31, "count": 1},
        {"digest": b"\1" * 33, "count": 1},
        {"digest": "0x" + "01" * 32, "count": 1},
        {"digest": b"\1" * 32},
        {"digest": b"\1" * 32, "count": 1, "hidden": 2},
        {"digest": b"\1" * 32, "count": 2**64},
        {"digest": b"\1" * 32, "count": -1},
    ],
)
def test_typed_data_that_do_not_fit_their_type_are_not_signed(message):
    signer = LocalSigner(secrets.token_bytes(32))
    with pytest.raises(RecordError):
        signer.sign_typed_data(DOMAIN.typed(), TYPES, "Note", message)


KINDS = {
    "bytes32": st.binary(min_size=32, max_size=32),
    "bytes": st.binary(max_size=70),
    "string": st.text(max_size=40),
    "bool": st.booleans(),
    "address": st.sampled_from(["0x" + "00" * 20, "0x" + "Ab" * 20]),
    "uint8": st.integers(0, 2**8 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "uint256": st.integers(0, 2**256 - 1),
    "uint64[]": st.lists(st.integers(0, 2**64 - 1), max_size=3),
}


@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
def test_typed_data_are_signed_as_eth_account_signs_them(data, kinds):
    key = secrets.token_bytes(32)
    types = {"Note": [{"name": f"f{i}", "type": kind} for i, kind in enumerate(kinds)]}
    message = {f"f{i}": data.draw(KINDS[kind]) for i, kind in enumerate(kinds)}
    theirs = Account.sign_typed_data(key, DOMAIN.typed(), types, message).signature
    assert LocalSigner(key).sign_typed_data(DOMAIN.typed(), types, "Note", message) == theirs


@pytest.mark.parametrize(
    ("domain", "types", "message"),
    [
        (
            DOMAIN.typed(),
            {"Note": [{"name": "of", "type": "Person"}], "Person": [{"name": "n", "type": "int8"}]},
            {"of": {"n": -3}},
        ),
        ({"name": "elsewhere"}, {"Note": [{"name": "n", "type": "uint8"}]}, {"n": 3}),
        (DOMAIN.typed(), {"Note": [{"name": "n", "type": "uint24"}]}, {"n": 3}),
    ],
)
def test_types_that_no_statement_of_ours_has_are_signed_as_well(domain, types, message):
    key = secrets.token_bytes(32)
    theirs = Account.sign_typed_data(key, domain, types, message).signature
    assert LocalSigner(key).sign_typed_data(domain, types, "Note", message) == theirs


def test_a_type_that_is_not_defined_is_not_signed():
    signer = LocalSigner(secrets.token_bytes(32))
    with pytest.raises(RecordError, match="Other"):
        signer.sign_typed_data(DOMAIN.typed(), TYPES, "Other", {})


def test_a_transaction_without_its_fields_is_not_signed():
    signer = LocalSigner(secrets.token_bytes(32))
    with pytest.raises(RecordError):
        signer.sign_transaction({"nonce": 0})
