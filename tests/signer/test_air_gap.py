"""Signing on a machine without network: carried there, signed, carried back, and on the chain."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from signer_stage import Key, Serving

from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.chain.evm import EvmConnector, EvmReader, deploy
from twopm_flower.cli import run
from twopm_flower.config import SignerSettings
from twopm_flower.node.chain_file import chain_toml, make_chain_settings
from twopm_flower.records.bundle import JoinRequest
from twopm_flower.records.digest import tagged_digest
from twopm_flower.signer.carried import SigningRequest
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.signer.opening import open_signer

TERMS = "0x" + "77" * 32
SEALING = "0x" + "22" * 32
LATER = "99999999999"

# Fails at the first socket that anything makes, and tells what was imported that speaks.
WITHOUT_NETWORK = """
import sys
def forbid(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"{event} without a network")
sys.addaudithook(forbid)
from twopm_flower.cli import run
from twopm_flower.config import SignerSettings
status = run(sys.argv[1:])
speaking = {"web3", "requests", "urllib3", "aiohttp", "http.client", "flwr", "torch", "grpc"}
print(sorted(speaking & set(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A chain, and a coordinator's home on it whose key is carried away after that."""
    folder = tmp_path_factory.mktemp("air-gap")
    with DevnetProcess(folder / "chain", 0) as chain, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        deployment = deploy(chain.url, chain.signer)
        pinned = make_chain_settings(chain.url, deployment)
        Path("chain.toml").write_text(chain_toml(pinned))
        for role in ("coordinator", "node"):
            out = f"{role}.toml"
            assert (
                run(["signer", "policy", "--for", "chain.toml", "--role", role, "--out", out]) == 0
            )
        yield chain, EvmReader(chain.url, deployment)


@pytest.fixture
def say(stage, capfd):
    def call(*arguments, status=0):
        capfd.readouterr()
        assert run(["signer", *map(str, arguments)]) == status
        shown = capfd.readouterr()
        return shown.out if status == 0 else shown.err

    return call


def without_network(*arguments):
    """Run a command where no socket can be made and, if the system lets us, no network is."""
    command = [sys.executable, "-c", WITHOUT_NETWORK, "signer", *map(str, arguments)]
    alone = ["unshare", "-rn"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        alone = []
    return subprocess.run([*alone, *command], check=False, capture_output=True, text=True)


@pytest.fixture
def sign(say):
    def call(file, *, key="chain/account.key", policy="coordinator.toml", status=0):
        return say("sign", file, "--yes", "--key", key, "--policy", policy, status=status)

    return call


def prepared(say, stage, name, *what):
    account = stage[0].signer.address
    say("prepare", *what, "--from", account, "--chain", "chain.toml", "--out", name)
    return Path(name)


def test_a_transaction_signed_without_network_lands(stage, say):
    _, reader = stage
    shown = say(
        *("prepare", "create-task", TERMS, 2, 2, 2, 10, "--chain", "chain.toml"),
        *("--from", stage[0].signer.address, "--out", "task.json"),
    )
    assert "createTask(termsDigest=0x7777" in shown
    done = without_network(
        *("sign", "task.json", "--yes"),
        *("--key", "chain/account.key", "--policy", "coordinator.toml"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert "createTask(termsDigest=0x7777" in done.stdout
    sent = json.loads(say("submit", "task.json.signed", "--chain", "chain.toml", "--json"))
    (event,) = reader.events(sent[0]["block"], sent[0]["block"])
    assert event.transaction_hash == sent[0]["transaction"]
    # Submitting again changes nothing and finds the same transaction.
    again = json.loads(say("submit", "task.json.signed", "--chain", "chain.toml", "--json"))
    assert again == sent


def change(path, **changes):
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))


def resealed(path):
    """Make the digest fit again, as somebody would who changes a file on its way."""
    value = json.loads(path.read_text())
    request = SigningRequest.from_json({**value, "digest": "0x" + "00" * 32})
    change(path, digest=tagged_digest("signing-request/v1", request.to_bytes()))


def test_a_file_that_was_changed_on_its_way_is_not_signed(stage, say, sign):
    file = prepared(say, stage, "changed.json", "create-task", TERMS, 2, 2, 2, 10)
    good = file.read_text()
    change(file, words="nothing much")
    assert "was changed after it was prepared" in sign(file, status=1)
    file.write_text(good)
    payload = {**json.loads(good)["payload"], "value": "0x1"}
    change(file, payload=payload)
    sign(file, status=1)
    resealed(file)
    assert "signing hash" in sign(file, status=1)
    file.write_text(good)
    change(file, expires_at="2001-01-01T00:00:00+00:00")
    resealed(file)
    assert "expired at 2001" in sign(file, status=1)
    file.write_text("{}")
    assert "twopm signer prepare" in sign(file, status=1)
    assert not Path("changed.json.signed").exists()


def test_the_policy_holds_without_a_network_too(stage, say, sign, tmp_path):
    file = prepared(say, stage, "policy.json", "create-task", TERMS, 2, 2, 2, 10)
    strict = tmp_path / "strict.toml"
    text = Path("coordinator.toml").read_text()
    strict.write_text(text.replace("createTask(bytes32 termsDigest", "createTusk(bytes32 x"))
    assert "is not allowed" in sign(file, policy=strict, status=1)
    stranger = Key(tmp_path / "stranger.key")
    assert "the request is for" in sign(file, key=stranger.path, status=1)


def test_what_comes_back_is_compared_with_what_was_asked_for(stage, say, sign):
    file = prepared(say, stage, "compare.json", "create-task", TERMS, 2, 2, 2, 10)
    other = prepared(say, stage, "other.json", "create-task", "0x" + "66" * 32, 2, 2, 2, 10)
    sign(file)
    mixed = json.loads(Path(f"{file}.signed").read_text())
    mixed["request"] = json.loads(other.read_text())
    Path("mixed.signed").write_text(json.dumps(mixed))
    error = say("submit", "mixed.signed", "--chain", "chain.toml", status=1)
    assert "another" in error
    # And the nonce is given to the first: the second cannot be signed at all.
    assert "another transaction was signed" in sign(other, status=1)
    say("submit", f"{file}.signed", "--chain", "chain.toml")


def test_a_transaction_whose_nonce_was_used_meanwhile_is_not_sent(stage, say, sign):
    chain, _ = stage
    first = prepared(say, stage, "n.json", "create-task", TERMS, 2, 2, 2, 10)
    nonce = int(json.loads(first.read_text())["payload"]["nonce"], 16)
    values = (TERMS, 2, 2, 2, 10, "--nonce", nonce + 1)
    late = prepared(say, stage, "late.json", "create-task", *values)
    sign(late)
    error = say("submit", "late.json.signed", "--chain", "chain.toml", status=1)
    assert f"next one is {nonce}" in error
    assert "before it first" in error
    assert chain.is_running


def test_an_expired_signature_is_not_sent(stage, say, sign):
    file = prepared(say, stage, "old.json", "create-task", TERMS, 2, 2, 2, 10, "--hours", "0.0003")
    moment = datetime.fromisoformat(json.loads(file.read_text())["expires_at"])
    assert moment - datetime.now(UTC) < timedelta(seconds=2)
    change(file, expires_at="2001-01-01T00:00:00+00:00")
    resealed(file)
    signed = {"kind": "signed-request/v1", "request": json.loads(file.read_text()), "result": "0x"}
    Path("old.json.signed").write_text(json.dumps(signed))
    error = say("submit", "old.json.signed", "--chain", "chain.toml", status=1)
    assert "expired at 2001" in error


def test_statements_of_a_node_without_network_reach_the_chain(stage, say, sign, tmp_path):
    chain, reader = stage
    node = Key(tmp_path / "identity.key")
    home = tmp_path / "coordinator"
    assert (
        run(["chain", "use", "chain.toml", "--key", "chain/account.key", "--home", str(home)]) == 0
    )
    common = ("--from", node.address, "--chain", "chain.toml", "--out")
    named = (f"node={node.address}", f"sealingKey={SEALING}")

    say("prepare", "Registration", *named, "nonce=0", f"deadline={LATER}", *common, "r.json")
    sign("r.json", key=node.path, policy="node.toml")
    assert reader.registered_key(node.address) is None
    say("submit", "r.json.signed", "--chain", "chain.toml", "--home", home)
    assert reader.registered_key(node.address) == SEALING

    say(
        *("prepare", "Membership", f"taskId={'0x' + '12' * 32}", f"termsDigest={TERMS}", *named),
        *("samples=9", f"dataCommitment={'0x' + '34' * 32}", *common, "m.json"),
    )
    sign("m.json", key=node.path, policy="node.toml")
    say(
        *("submit", "r.json.signed", "m.json.signed", "--chain", "chain.toml"),
        *("--join-request", "alice.join.json"),
    )
    request = JoinRequest.from_bytes(Path("alice.join.json").read_bytes())
    deployment = reader.deployment()
    assert request.registration.check(deployment.registry_domain).sealing_key == SEALING
    assert request.membership.check(deployment.domain).samples == 9

    say("prepare", "Departure", named[0], "nonce=1", f"deadline={LATER}", *common, "d.json")
    sign("d.json", key=node.path, policy="node.toml")
    say("submit", "d.json.signed", "--chain", "chain.toml", "--home", home)
    assert reader.registered_key(node.address) is None
    assert LocalSigner.from_file(node.path).address == node.address
    assert chain.is_running


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (["nonsense"], "0 functions of our contracts"),
        (["start"], "takes 1 arguments, not 0"),
        (["start", "0x12"], "taskId has to be exactly 32 bytes"),
        (["record-round", "x", "y", "1", "z", "w"], "is no uint32"),
        (["Registration", "node"], "NAME=VALUE"),
        (["Wish", "node=1"], "no statement"),
        (["Departure", "node=0x12"], "fields"),
    ],
)
def test_what_cannot_be_prepared_is_told_with_what_to_do(stage, say, what, reason):
    account = stage[0].signer.address
    error = say("prepare", *what, "--from", account, "--chain", "chain.toml", status=1)
    assert reason in " ".join(error.split())


def test_a_coordinator_acts_through_a_signer_that_alone_holds_the_key(stage, tmp_path):
    chain, reader = stage
    key = Key(tmp_path / "unused.key")
    key.path = Path("chain/account.key").absolute()
    serving = Serving(tmp_path, key, Path("coordinator.toml").read_text())
    try:
        settings = SignerSettings(url=serving.told["url"], account=chain.signer.address)
        signer = open_signer(settings, tmp_path)
        connector = EvmConnector(chain.url, reader.deployment(), signer)
        task_id, _ = connector.create_task(
            TERMS, rounds=2, min_contributors=2, quorum=2, max_samples=10
        )
        assert reader.task(task_id).coordinator == chain.signer.address
        connector.cancel_task(task_id, "enough")
        assert reader.task(task_id).state == "cancelled"
        lost = connector.sign_filler(connector.next_nonce())
        dearer = connector.sign_filler(lost.nonce, replacing=lost)
        assert connector.broadcast(dearer)
        assert connector.wait(dearer.transaction_hash).status == 1
        assert "cancel(taskId=0x" in serving.said
    finally:
        serving.stop()
