import json

import pytest

CHAIN = f"""rpc_url = "http://127.0.0.1:9"
chain_id = 5
genesis_hash = "0x{"01" * 32}"
node_registry = "0x{"00" * 19}11"
task_registry = "0x{"00" * 19}22"
data_registry = "0x{"00" * 19}44"
receipt_registry = "0x{"00" * 19}55"
"""


@pytest.fixture
def chain_file(tmp_path):
    file = tmp_path / "chain.toml"
    file.write_text(CHAIN)
    return file


@pytest.fixture
def password_file(tmp_path):
    file = tmp_path / "password"
    file.write_text("open sesame\n")
    file.chmod(0o600)
    return file


def test_a_nodes_key_is_encrypted_on_request_and_found_by_later_commands(
    twopm, tmp_path, chain_file, password_file
):
    place = ("--home", tmp_path / "home", "--json")
    card = ("--chain", chain_file, "--out", tmp_path / "alice.card.json")
    made = twopm(
        *("node", "init", "--name", "alice", *card, *place), "--password-file", password_file
    )
    assert made.status == 0
    key = json.loads((tmp_path / "home" / "identity.key").read_text())
    assert key["address"].lower() == made.json["address"][2:].lower()
    shown = twopm("node", "show", *place)
    assert shown.json["node"]["address"] == made.json["address"]
    assert "sesame" not in made.out + made.err + shown.out + shown.err


def test_a_coordinators_password_file_is_kept_in_the_settings(
    twopm, tmp_path, chain_file, password_file
):
    place = ("--home", tmp_path / "home")
    twopm(
        *("node", "init", "--name", "a", "--chain", chain_file, "--home", tmp_path / "a"),
        *("--out", tmp_path / "card", "--password-file", password_file),
    )
    key = ("--key", tmp_path / "a" / "identity.key")
    refused = twopm("chain", "use", chain_file, *place, "--password-file", password_file)
    assert refused.status == 2
    used = twopm("chain", "use", chain_file, *place, *key, "--password-file", password_file)
    assert used.status == 0
    settings = (tmp_path / "home" / "config.toml").read_text()
    assert f'key_password_file = "{password_file}"' in settings
