"""``twopm signer`` as people meet it: what it shows, how it ends, and why it cannot."""

import json
import re
from pathlib import Path

import pytest
from signer_stage import POLICY, Key, Serving, local_service, transaction

from twopm_flower.cli import run
from twopm_flower.errors import ConfigError
from twopm_flower.signer.keystore import LocalSigner, read_key
from twopm_flower.signer.policy import (
    ContractRule,
    Limits,
    Policy,
    ProgramRule,
    SolanaRules,
    TypedDataRule,
)
from twopm_flower.signer.server import UnixServer
from twopm_flower.signer.solana_message import from_base58


@pytest.fixture
def say(capfd):
    def call(*arguments, status=0):
        capfd.readouterr()
        assert run(["signer", *map(str, arguments)]) == status
        shown = capfd.readouterr()
        return shown.err if status else shown.out

    return call


@pytest.fixture
def chain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registries = "".join(
        f'{name}_registry = "0x{digit * 40}"\n'
        for name, digit in (("node", 1), ("task", 2), ("data", 3), ("receipt", 4))
        for digit in [str(digit)]
    )
    pinned = f'rpc_url = "http://127.0.0.1:1"\nchain_id = 5\ngenesis_hash = "0x{"00" * 32}"\n'
    Path("chain.toml").write_text(pinned + registries)


def test_a_key_of_either_kind_is_made_and_never_overwritten(say, tmp_path):
    made = json.loads(say("create-key", "--out", tmp_path / "a.key", "--json"))
    assert LocalSigner.from_file(tmp_path / "a.key").address == made["account"]
    assert "exists already" in say("create-key", "--out", tmp_path / "a.key", status=1)
    kind = ("--kind", "ed25519", "--json")
    solana = json.loads(say("create-key", "--out", tmp_path / "b.key", *kind))
    assert len(from_base58(solana["account"])) == 32
    assert read_key(tmp_path / "a.key").hex() not in say("create-key", "--out", tmp_path / "c.key")


def test_a_policy_is_written_once_and_shown_as_json(say, chain):
    shown = say("policy", "--for", "chain.toml", "--max-gas", "12345", "--max-fee-per-gas", "1.5")
    assert "a coordinator on chain 5 (evm)" in shown
    assert "Read it before you use it" in shown
    text = Path("policy.toml").read_text()
    assert "max_gas = 12345" in text
    assert "max_fee_per_gas_wei = 1500000000" in text
    assert "--force" in say("policy", "--for", "chain.toml", status=1)
    values = json.loads(say("policy", "--for", "chain.toml", "--force", "--json"))
    assert values["chain_ids"] == [5]
    assert values["limits"]["max_value_wei"] == 0
    node = json.loads(say("policy", "--for", "chain.toml", "--role", "node", "--force", "--json"))
    assert node["contracts"] == []


def test_a_log_is_checked_with_the_state_beside_it(say, tmp_path):
    signer = Serving(tmp_path, Key(tmp_path / "account.key"))
    signer.ask("eth_signTransaction", transaction())
    assert signer.stop() == 0
    assert not signer.socket.exists()
    log = tmp_path / "account.key.audit.jsonl"
    shown = say("audit", log)
    assert "Every entry follows from the one before." in shown
    found = json.loads(say("audit", log, "--json"))
    assert (found["entries"], found["signed"], found["refused"]) == (2, 1, 0)
    assert found["compared_with"].endswith("account.key.signer.sqlite")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0])
    assert "entry 2 of" in say("audit", log, status=1)
    (tmp_path / "account.key.signer.sqlite").rename(tmp_path / "kept.sqlite")
    assert "only the signer's --state can tell" in say("audit", log)
    assert "was cut" in say("audit", log, "--state", tmp_path / "kept.sqlite", status=1)
    assert "no state of a signer" in say("audit", log, "--state", tmp_path / "no.sqlite", status=1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "either --socket or --listen"),
        (["--listen", "127.0.0.1:0"], "--tls-client-ca"),
        (["--socket", "s.sock", "--listen", "127.0.0.1:0"], "either"),
        (["--socket", "policy.toml"], "is no socket"),
        (["--socket", "none/s.sock"], "cannot be made"),
        (["--socket", "s.sock", "--password-file", "policy.toml"], "no encrypted keystore"),
    ],
)
def test_a_signer_that_cannot_serve_says_why_and_ends(say, chain, tmp_path, options, reason):
    Key(tmp_path / "account.key")
    Path("policy.toml").write_text(POLICY)
    given = ("--key", "account.key", "--policy", "policy.toml", *options)
    assert reason in say("serve", *given, status=1)


def test_a_key_that_others_can_read_is_not_served(say, chain, tmp_path):
    Key(tmp_path / "account.key").path.chmod(0o640)
    Path("policy.toml").write_text(POLICY)
    given = ("--key", "account.key", "--policy", "policy.toml", "--socket", "s.sock")
    assert "chmod 600" in say("serve", *given, status=1)


def test_a_socket_left_by_a_crash_is_replaced_and_one_in_use_is_not(tmp_path):
    service, state, _ = local_service(tmp_path)
    path = tmp_path / "s.sock"
    with UnixServer(service, path), pytest.raises(ConfigError, match="another signer serves"):
        UnixServer(service, path)
    import socket

    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with UnixServer(service, path):
        assert path.stat().st_mode & 0o777 == 0o600
    with UnixServer(service, path, uids=[12345]):
        assert path.stat().st_mode & 0o777 == 0o666
    state.close()


def test_certificates_are_made_once(say, tmp_path):
    folder = tmp_path / "tls"
    shown = say("certificates", "--host", "signer.example", "--out", folder)
    assert "client.pem" in "".join(shown.split())
    assert (folder / "signer.key").stat().st_mode & 0o777 == 0o600
    assert "certificates already" in say(
        "certificates", "--host", "x.example", "--out", folder, status=1
    )


def test_every_setting_of_a_policy_is_in_the_docs():
    page = Path(__file__).parents[2] / "docs" / "signer.md"
    named = set(re.findall(r"[a-z_]{4,}", page.read_text()))
    models = (Policy, Limits, ContractRule, TypedDataRule, SolanaRules, ProgramRule)
    settings = {field for model in models for field in model.model_fields}
    # The page writes the second of a pair by its end.
    assert settings - named == {"transactions_per_hour"}
    assert "`_per_hour`" in page.read_text()
