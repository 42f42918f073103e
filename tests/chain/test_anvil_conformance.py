"""The connector tells the same story on anvil as on the embedded chain."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from chain_stage import Stage, digest

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.outbox import Outbox
from twopm_flower.errors import RecordConflict, TransactionReverted
from twopm_flower.signer.keystore import LocalSigner

# The first account of anvil's published test mnemonic.
ANVIL_KEY = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")


def find_anvil():
    packages = Path(__file__).parents[2] / "contracts" / "node_modules" / "@foundry-rs"
    installed = sorted(str(path) for path in packages.glob("anvil-*/bin/anvil"))
    return os.environ.get("TWOPM_ANVIL") or shutil.which("anvil") or (installed or [None])[0]


ANVIL = find_anvil()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rpc(url, method, *parameters):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    return requests.post(url, json=body, timeout=5).json()


@pytest.fixture(scope="module")
def anvil():
    if ANVIL is None:
        pytest.skip(
            "anvil is missing: run `npm install --no-save @foundry-rs/anvil@1.7.1` in contracts/,"
            " put it on PATH, or set TWOPM_ANVIL to its path"
        )
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = subprocess.Popen(
        [ANVIL, "--port", str(port), "--silent"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                rpc(url, "eth_chainId")
                break
            except requests.ConnectionError:
                assert process.poll() is None, "anvil ended"
                assert time.monotonic() < deadline, "anvil does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def anvil_stage(anvil):
    signer = LocalSigner(ANVIL_KEY)
    return Stage(EvmConnector(anvil, deploy(anvil, signer), signer))


@pytest.fixture(scope="module")
def anvil_nodes(anvil_stage):
    return anvil_stage.registered_nodes(3)


def test_a_task_runs_from_creation_to_its_end(anvil_stage, anvil_nodes):
    anvil_stage.connector.check()
    task_id = anvil_stage.finished_rounds(anvil_nodes, rounds=3)
    ended = anvil_stage.finalise(task_id, anvil_nodes)
    assert ended.head == anvil_stage.connector.round_records(task_id)[-1].head
    assert len(anvil_stage.connector.members(task_id)) == 3
    assert anvil_stage.state(task_id).model_digest == digest(7)


def test_gas_is_that_of_the_embedded_chain(anvil_stage, anvil_nodes, stage, nodes):
    def gas(some_stage, some_nodes):
        task_id = some_stage.running_task(some_nodes)
        return [some_stage.record(task_id, n).gas_used for n in (1, 2)]

    on_anvil, embedded = gas(anvil_stage, anvil_nodes), gas(stage, nodes)
    # Task ids differ, and a zero byte in the call data is 12 gas cheaper.
    assert all(abs(a - b) <= 120 for a, b in zip(on_anvil, embedded, strict=True))


def test_refusals_carry_the_contracts_reason(anvil_stage, anvil_nodes):
    task_id = anvil_stage.running_task(anvil_nodes)
    with pytest.raises(TransactionReverted) as refusal:
        anvil_stage.record(task_id, 2)
    assert refusal.value.error_name == "OutOfOrder"
    assert refusal.value.arguments["lastRound"] == 0


def test_a_conflicting_record_is_an_alarm(anvil_stage, anvil_nodes):
    task_id = anvil_stage.running_task(anvil_nodes)
    anvil_stage.record(task_id, 1)
    with pytest.raises(RecordConflict):
        anvil_stage.connector.record_round(task_id, 1, 1, digest(1), digest(2))


def test_the_same_bytes_may_be_sent_again_while_waiting_and_once_mined(
    anvil, anvil_stage, anvil_nodes
):
    task_id = anvil_stage.running_task(anvil_nodes)
    call = RoundCall(task_id, 1, 1, digest(5), digest(6))
    rpc(anvil, "evm_setAutomine", False)
    try:
        signed = anvil_stage.connector.sign_call(call)
        assert anvil_stage.connector.broadcast(signed)
        assert anvil_stage.connector.broadcast(signed)
        rpc(anvil, "evm_mine")
        assert anvil_stage.connector.wait(signed.transaction_hash, timeout_s=10).status == 1
        assert anvil_stage.connector.broadcast(signed)
    finally:
        rpc(anvil, "evm_setAutomine", True)
    assert len(anvil_stage.connector.round_records(task_id)) == 1


def test_bytes_whose_nonce_is_taken_are_known_to_be_dead(anvil_stage, anvil_nodes):
    task_id = anvil_stage.running_task(anvil_nodes)
    signed = anvil_stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    anvil_stage.create()
    assert anvil_stage.connector.broadcast(signed) is False


def test_bytes_that_have_become_too_cheap_are_signed_anew(
    anvil, anvil_stage, anvil_nodes, tmp_path
):
    task_id = anvil_stage.running_task(anvil_nodes)
    call = RoundCall(task_id, 1, 1, digest(5), digest(6))
    signed = anvil_stage.connector.sign_call(call)
    rpc(anvil, "anvil_setNextBlockBaseFeePerGas", hex(500 * 10**9))
    rpc(anvil, "evm_mine")
    assert anvil_stage.connector.broadcast(signed) is False
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.enqueue(call)
    outbox.deliver(anvil_stage.connector)
    outbox.close()
    assert len(anvil_stage.connector.round_records(task_id)) == 1
