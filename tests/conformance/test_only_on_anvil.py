"""What the embedded chain cannot be made to do, as it mines every transaction at once."""

import pytest
from chain_stage import Stage, digest
from local_chains import open_chain

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.outbox import Outbox


@pytest.fixture(scope="module")
def anvil(tmp_path_factory):
    with open_chain("anvil", tmp_path_factory.mktemp("anvil")) as chain:
        yield chain


@pytest.fixture(scope="module")
def stage(anvil):
    return Stage(anvil.connector(anvil.local.signer))


@pytest.fixture(scope="module")
def nodes(stage):
    return stage.registered_nodes(3)


@pytest.mark.slow
def test_gas_is_that_of_the_embedded_chain(stage, nodes, tmp_path):
    def gas(some_stage, some_nodes):
        task_id = some_stage.running_task(some_nodes)
        return [some_stage.record(task_id, n).gas_used for n in (1, 2)]

    with open_chain("evm", tmp_path) as chain:
        other = Stage(chain.connector(chain.local.signer))
        embedded = gas(other, other.registered_nodes(3))
    # Task ids differ, and a zero byte in the call data is 12 gas cheaper.
    assert all(abs(a - b) <= 120 for a, b in zip(gas(stage, nodes), embedded, strict=True))


def test_the_same_bytes_may_be_sent_again_while_waiting_and_once_mined(anvil, stage, nodes):
    task_id = stage.running_task(nodes)
    call = RoundCall(task_id, 1, 1, digest(5), digest(6))
    anvil.local.rpc("evm_setAutomine", False)
    try:
        signed = stage.connector.sign_call(call)
        assert stage.connector.broadcast(signed)
        assert stage.connector.broadcast(signed)
        assert stage.connector.inclusion(signed.transaction_hash) is None
        anvil.local.rpc("evm_mine")
        assert stage.connector.wait(signed.transaction_hash, timeout_s=10).status == 1
        assert stage.connector.broadcast(signed)
    finally:
        anvil.local.rpc("evm_setAutomine", True)
    assert len(stage.connector.round_records(task_id)) == 1


def test_bytes_whose_nonce_is_taken_are_known_to_be_dead(stage, nodes):
    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    stage.create()
    assert stage.connector.broadcast(signed) is False


def test_bytes_that_have_become_too_cheap_are_signed_anew(anvil, stage, nodes, tmp_path):
    task_id = stage.running_task(nodes)
    call = RoundCall(task_id, 1, 1, digest(5), digest(6))
    signed = stage.connector.sign_call(call)
    anvil.local.rpc("anvil_setNextBlockBaseFeePerGas", hex(500 * 10**9))
    anvil.local.rpc("evm_mine")
    assert stage.connector.broadcast(signed) is False
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.enqueue(call)
    outbox.deliver(stage.connector)
    outbox.close()
    assert len(stage.connector.round_records(task_id)) == 1
