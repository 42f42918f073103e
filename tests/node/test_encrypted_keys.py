"""Keys that sign may be encrypted keystores, whose password a setting names."""

import json
import logging
import secrets

import pytest
from eth_account import Account

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.chain_access import coordinator_signer
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.doctor import examine
from twopm_flower.node.provision import configure_home, init_node, make_card

PASSWORD = "open sesame"


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def keystore(path):
    """Few iterations: the strength of the password is not what is tested."""
    encrypted = Account.encrypt(secrets.token_bytes(32), PASSWORD, kdf="pbkdf2", iterations=2)
    return private(path, json.dumps(encrypted))


@pytest.fixture
def password_file(tmp_path):
    return private(tmp_path / "password", f"{PASSWORD}\n")


def test_a_node_whose_key_is_encrypted_signs_with_it(tmp_path, chain, password_file, caplog):
    caplog.set_level(logging.DEBUG)
    home = tmp_path / "home"
    card = init_node(home, name="alice", chain=chain.settings, password_file=password_file)
    stored = json.loads((home / "identity.key").read_text())
    assert stored["version"] == 3
    assert NodeHome(home).signer.address == card.registration.node
    assert make_card(home).registration.node == card.registration.node
    text = (home / "config.toml").read_text() + caplog.text + repr(load_settings(home))
    assert PASSWORD not in text
    assert str(password_file) in text


def test_setting_up_an_encrypted_node_again_keeps_its_key(tmp_path, chain, password_file):
    home = tmp_path / "home"
    first = init_node(home, name="alice", chain=chain.settings, password_file=password_file)
    again = init_node(home, name="alice", chain=chain.settings, password_file=password_file)
    without = init_node(home, name="alice", chain=chain.settings)
    assert first.registration.node == again.registration.node == without.registration.node


def test_a_key_that_is_there_in_the_clear_is_not_taken_for_encrypted(
    tmp_path, chain, password_file
):
    home = tmp_path / "home"
    init_node(home, name="alice", chain=chain.settings)
    before = (home / "config.toml").read_text()
    with pytest.raises(ConfigError, match="no encrypted keystore"):
        init_node(home, name="alice", chain=chain.settings, password_file=password_file)
    assert (home / "config.toml").read_text() == before


def test_a_bad_password_file_is_refused_before_anything_is_made(tmp_path, chain):
    with pytest.raises(ConfigError, match="password file"):
        init_node(
            tmp_path / "home", name="alice", chain=chain.settings, password_file=tmp_path / "no"
        )
    assert not (tmp_path / "home").exists()


def test_a_password_file_in_the_environment_is_found_from_the_home(
    tmp_path, chain, password_file, monkeypatch
):
    home = tmp_path / "home"
    node = init_node(home, name="alice", chain=chain.settings).registration.node
    assert NodeHome(home).signer.address == node
    (home / "identity.key").unlink()
    keystore(home / "identity.key")
    with pytest.raises(ConfigError) as error:
        _ = NodeHome(home).signer
    assert "node.identity_password_file" in error.value.hint
    monkeypatch.setenv("TWOPM_NODE__IDENTITY_PASSWORD_FILE", f"../{password_file.name}")
    stored = json.loads((home / "identity.key").read_text())
    assert NodeHome(home).signer.address[2:].lower() == stored["address"].lower()


def test_the_account_that_coordinates_may_be_encrypted(tmp_path, chain, password_file):
    key = keystore(tmp_path / "account.json")
    home = tmp_path / "home"
    configure_home(home, chain.settings, coordinator_key=key, password_file=password_file)
    configure_home(home, chain.settings, coordinator_key=key, password_file=password_file)
    signer = coordinator_signer(load_settings(home))
    assert signer.address[2:].lower() == json.loads(key.read_text())["address"].lower()
    with pytest.raises(ConfigError, match="does not open"):
        configure_home(
            tmp_path / "other",
            chain.settings,
            coordinator_key=key,
            password_file=private(tmp_path / "wrong", "open barley"),
        )
    assert not (tmp_path / "other").exists()


def test_the_doctor_finds_a_password_file_that_others_can_read(tmp_path, chain, password_file):
    home = tmp_path / "home"
    init_node(home, name="alice", chain=chain.settings, password_file=password_file)
    assert not [f for f in examine(home, tmp_path) if f.subject == "password file"]
    password_file.chmod(0o644)
    (finding,) = [f for f in examine(home, tmp_path) if f.subject == "password file"]
    assert finding.state == "bad"
    assert finding.remedy == f"Run: chmod 600 {password_file}"
