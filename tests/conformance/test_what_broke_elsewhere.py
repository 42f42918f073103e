"""What an earlier framework of this kind got wrong on its chain, each as a test of every chain."""

import time

import pytest
from chain_stage import Stage, digest, refused

from twopm_flower.chain.base import FinalRound, RoundCall
from twopm_flower.errors import ChainUnavailable, WrongChain


def test_who_judges_a_statement_is_pinned_and_not_chosen_by_whoever_asks(chain, nodes, finished):
    """There, a verifier's address was an argument: a stub that says yes to everything would do."""
    for registry in ("node_registry", "task_registry", "data_registry", "receipt_registry"):
        stub = chain.settings(**{registry: "0x" + "22" * 20})
        stage = Stage(chain.backend.open_connector(stub, chain.local.signer))
        with pytest.raises(WrongChain):
            stage.connector.finalise_task(
                finished, FinalRound(digest(0), 1, digest(1), digest(2)), digest(7), digest(8), {}
            )


def test_a_task_that_failed_is_not_revived_by_finishing_it(stage, nodes):
    """There, a failed task could be finished again, and then confirmed."""
    task_id = stage.finished_rounds(nodes, rounds=1)
    stage.connector.cancel_task(task_id, "diverged")
    for again in (stage.finalise, stage.attest):
        with refused("WrongState"):
            again(task_id, nodes)
    assert stage.state(task_id).state == "cancelled"
    assert stage.connector.finalisation(task_id) is None


def test_an_outsider_commits_to_no_result(stage, stranger, nodes, finished):
    """There, uploads checked the task's status and never who sent them."""
    with refused("NotCoordinator"):
        stranger.connector.record_round(finished, 2, 9, digest(1), digest(2))
    with refused("NotCoordinator"):
        stranger.finalise(finished, nodes)
    outsiders = stage.registered_nodes(2)
    with refused("NotMember"):
        stage.finalise(finished, outsiders)


def test_two_tasks_in_one_moment_have_two_identifiers(stage):
    """There, a task's identifier came from the number of the block."""
    signed = [stage.create(), stage.create()]
    assert len(set(signed)) == 2
    stage.connector.cancel_task(signed[0], "one of two")
    assert stage.state(signed[1]).state == "open"


def test_data_is_committed_to_before_training_and_never_replaced(stage, nodes):
    """There, data was registered after training, without a salt, and could be overwritten."""
    task_id = stage.running_task(nodes)
    with refused("WrongState"):
        stage.join(task_id, nodes[0], data_commitment=digest(99))
    node = stage.registered_nodes(1)[0]
    stage.publish(node, 1)
    with refused("WrongVersion"):
        stage.publish(node, 1, commitment=digest(99))
    assert stage.connector.data_commitments(node.address)[0].commitment == digest(501)


def test_what_happened_before_somebody_looked_is_told_and_no_wait_is_without_end(
    stage, chain, finalised
):
    """There, events were read from the latest block only, and a receipt awaited for ever."""
    newcomer = chain.reader()
    told = newcomer.events(0, newcomer.head_block())
    ended = [e for e in told if e.name == "task_finalised" and e.values["task_id"] == finalised]
    assert len(ended) == 1
    task_id = stage.create()
    began = time.monotonic()
    unknown = "0x" + "34" * ((len(ended[0].transaction_hash) - 2) // 2)
    with pytest.raises(ChainUnavailable):
        stage.connector.wait(unknown, timeout_s=0.1)
    assert time.monotonic() - began < 60
    with refused("WrongState"):
        stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(1), digest(2)))
