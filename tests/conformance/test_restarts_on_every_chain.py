import pytest
from chain_stage import Stage, digest

from twopm_flower.errors import ChainUnavailable, WrongChain


def test_a_chain_says_how_it_is_doing(stage, chain):
    stage.connector.check()
    status = stage.connector.status()
    deployment = chain.deployment
    assert (status.family, status.chain_id) == (deployment.family, deployment.chain_id)
    assert status.final_block <= status.head_block <= stage.connector.head_block()
    assert status.head_time > 1_600_000_000
    assert stage.connector.deployment() == deployment
    assert deployment.family == chain.backend.family


def test_another_chain_of_the_same_kind_is_not_believed(chain, second_chain, stage):
    before = second_chain.reader().head_block()
    elsewhere = chain.settings(rpc_url=second_chain.local.url)
    with pytest.raises(WrongChain):
        chain.backend.open_reader(elsewhere).check()
    lost = Stage(chain.backend.open_connector(elsewhere, chain.local.signer))
    with pytest.raises(WrongChain):
        lost.connector.task(digest(1))
    with pytest.raises(WrongChain):
        lost.create()
    assert second_chain.reader().head_block() == before


@pytest.mark.parametrize("changed", ["chain_id", "genesis_hash", "task_registry"])
def test_a_deployment_that_is_not_this_one_is_not_believed(chain, changed):
    other = {"chain_id": 7, "genesis_hash": digest(7), "task_registry": "0x" + "11" * 20}[changed]
    with pytest.raises(WrongChain):
        chain.reader(**{changed: other}).check()


def test_nobody_at_the_endpoint_is_said_so(chain):
    with pytest.raises(ChainUnavailable) as error:
        chain.reader(rpc_url="http://127.0.0.1:9", timeout_s=1).head_block()
    assert error.value.hint


@pytest.fixture(scope="session")
def restarting(name, second_chain):
    if name == "anvil":
        pytest.skip("anvil keeps its state in memory")
    return Stage(second_chain.connector(second_chain.local.signer))


def test_what_was_answered_survives_a_stop_and_a_kill(second_chain, restarting):
    nodes = restarting.registered_nodes(2)
    task_id = restarting.running_task(nodes, rounds=3)
    for number, end in enumerate((second_chain.local.stop, second_chain.local.kill), start=1):
        record = restarting.record(task_id, number)
        state, head = restarting.state(task_id), restarting.connector.head_block()
        assert second_chain.local.is_running
        end()
        assert not second_chain.local.is_running
        with pytest.raises(ChainUnavailable):
            restarting.state(task_id)
        offline = second_chain.backend.open_offline(second_chain.settings())
        if offline is not None:
            assert offline.task(task_id) == state
        second_chain.local.start()
        # Who was connected goes on, and who comes now sees the same.
        assert restarting.state(task_id) == state
        newcomer = second_chain.reader()
        assert newcomer.round_record(task_id, number, 1) == record
        assert newcomer.block_hash(record.block_number) == record.block_hash
        assert newcomer.head_block() >= head
    restarting.record(task_id, 3)
    restarting.finalise(task_id, nodes)
    assert restarting.state(task_id).state == "finalised"
