import pytest
from chain_stage import digest, in_signing_order, refused

from twopm_flower.chain.base import FinalRound
from twopm_flower.errors import RecordConflict, TransactionReverted


@pytest.fixture(params=["attest_model", "finalise_task"])
def bring(stage, request):
    """Either way of bringing a model that members signed to the chain."""
    return getattr(stage.connector, request.param)


def signatures(stage, task_id, nodes, /, **changes):
    return {node.address: stage.model_signature(task_id, node, **changes) for node in nodes}


def test_a_quorum_attests_the_model_of_each_round_and_the_task_goes_on(stage, nodes):
    task_id = stage.running_task(nodes)
    assert stage.connector.attestations(task_id) == ()
    stage.record(task_id, 1)
    first = stage.attest(task_id, nodes[:2])
    assert (first.task_id, first.round, first.signers) == (task_id, 1, 2)
    assert (first.model_digest, first.metrics_digest) == (digest(7), digest(8))
    assert first.manifest_digest == stage.connector.round_record(task_id, 1, 1).manifest_digest
    assert stage.attest(task_id, nodes) == first
    with pytest.raises(RecordConflict):
        stage.connector.attest_model(task_id, stage.last_record(task_id), digest(9), digest(8), {})
    stage.record(task_id, 2)
    second = stage.attest(task_id, nodes)
    assert stage.connector.attestations(task_id) == (first, second)
    assert stage.state(task_id).state == "running"
    assert stage.finalise(task_id, nodes).signers == 3


@pytest.mark.parametrize("signing", [2, 3])
def test_a_quorum_of_members_ends_a_task(stage, nodes, signing):
    task_id = stage.finished_rounds(nodes, rounds=1)
    assert stage.connector.finalisation(task_id) is None
    ended = stage.finalise(task_id, nodes[:signing])
    assert (ended.model_digest, ended.metrics_digest) == (digest(7), digest(8))
    assert ended.signers == signing
    assert stage.connector.finalisation(task_id) == ended
    assert ended.block_hash == stage.connector.block_hash(ended.block_number)
    task = stage.state(task_id)
    assert (task.state, task.model_digest, task.head) == ("finalised", digest(7), ended.head)


def test_finalising_the_same_again_is_success_and_another_model_an_alarm(stage, nodes, finalised):
    ended = stage.connector.finalisation(finalised)
    assert stage.finalise(finalised, nodes[:2]) == ended
    last = stage.last_record(finalised)
    for other in ((digest(9), digest(8)), (digest(7), digest(9))):
        with pytest.raises(RecordConflict):
            stage.connector.finalise_task(finalised, last, *other, {})
    assert stage.connector.finalisation(finalised) == ended


def test_too_few_signatures_are_no_quorum(stage, nodes, finished, bring):
    last, few = stage.last_record(finished), signatures(stage, finished, nodes[:1])
    with refused("QuorumMissed"):
        bring(finished, last, digest(7), digest(8), few)
    with refused("QuorumMissed"):
        bring(finished, last, digest(7), digest(8), {})


def test_no_task_ends_before_its_last_round(stage, nodes, running):
    with refused("RoundsMissing"):
        stage.finalise(running, nodes)


def test_an_outsider_does_not_count(stage, nodes, finished, bring):
    outsider = stage.registered_nodes(1)[0]
    given = signatures(stage, finished, [nodes[0], outsider])
    with refused("NotMember"):
        bring(finished, stage.last_record(finished), digest(7), digest(8), given)


def test_a_member_does_not_count_twice(stage, nodes, finished, bring):
    signature = stage.model_signature(finished, nodes[0])
    given = {nodes[0].address: signature, nodes[1].address: signature}
    with refused("SignersNotIncreasing"):
        bring(finished, stage.last_record(finished), digest(7), digest(8), given)


def test_signers_come_in_the_order_of_their_addresses(stage, nodes, finished, bring):
    low, high = in_signing_order(nodes)[:2]
    swapped = {
        low.address: stage.model_signature(finished, high),
        high.address: stage.model_signature(finished, low),
    }
    with refused("SignersNotIncreasing"):
        bring(finished, stage.last_record(finished), digest(7), digest(8), swapped)


@pytest.mark.parametrize(
    "change",
    [
        {"model_digest": digest(9)},
        {"metrics_digest": digest(9)},
        {"manifest_digest": digest(9)},
        {"round": 1},
        {"task_id": digest(9)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_signatures_over_anything_else_do_not_count(stage, nodes, finished, bring, change):
    given = signatures(stage, finished, nodes, **change)
    with pytest.raises(TransactionReverted) as refusal:
        bring(finished, stage.last_record(finished), digest(7), digest(8), given)
    # Whom they recover to is anybody, so either check may be the first to fail.
    assert refusal.value.error_name in {"NotMember", "SignersNotIncreasing"}


@pytest.mark.parametrize("wrong", ["previous_head", "attempt", "manifest_digest", "updates_root"])
def test_the_last_record_must_be_the_one_on_the_chain(stage, nodes, finished, bring, wrong):
    last = stage.last_record(finished)
    value = 2 if wrong == "attempt" else digest(99)
    changed = FinalRound(**(vars(last) | {wrong: value}))
    with refused("HeadMismatch"):
        bring(finished, changed, digest(7), digest(8), signatures(stage, finished, nodes))


def test_there_is_no_model_before_the_first_round(stage, nodes):
    task_id = stage.running_task(nodes, rounds=1)
    nothing = FinalRound(digest(0), 1, digest(1), digest(2))
    with refused("HeadMismatch"):
        stage.connector.attest_model(task_id, nothing, digest(7), digest(8), {})


@pytest.mark.parametrize("digests", [(digest(0), digest(8)), (digest(7), digest(0))])
def test_nothing_is_no_model(stage, finished, bring, digests):
    with refused("ZeroDigest"):
        bring(finished, stage.last_record(finished), *digests, {})


def test_nothing_of_this_changed_the_task(stage, finished):
    assert stage.state(finished).state == "running"
    assert stage.connector.attestations(finished) == ()
    assert stage.connector.finalisation(finished) is None
