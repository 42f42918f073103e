"""What the connector tells of tasks, and how the contract's rules come back through it.

Who may do what, wherever a task stands, is in tests/contracts/test_task_states.py.
"""

import pytest
from chain_stage import digest, in_signing_order, new_node

from twopm_flower.chain.base import FinalRound, RoundCall
from twopm_flower.errors import RecordConflict, TransactionReverted

# The suite of all chains (tests/conformance) asks the same of the rules, on this chain, too.
pytestmark = pytest.mark.full

GAS_PER_RECORD = 60_000


def refused(error_name):
    return pytest.raises(TransactionReverted, match=f"{error_name}\\(|{error_name}$")


@pytest.fixture(scope="module")
def finished(stage, nodes):
    """A task that only lacks its end, for tests in which the end is refused."""
    return stage.finished_rounds(nodes)


def test_a_task_tells_what_was_agreed(stage):
    task = stage.state(stage.create(rounds=4, min_contributors=3, quorum=2, max_samples=50))
    assert task.state == "open"
    assert task.coordinator == stage.connector.account
    assert (task.rounds, task.min_contributors, task.quorum, task.max_samples) == (4, 3, 2, 50)
    assert (task.last_round, task.last_attempt, task.members) == (0, 0, 0)
    assert task.terms_digest == digest(77)
    assert task.model_digest is None


@pytest.mark.parametrize(
    "terms",
    [
        {"rounds": 0},
        {"min_contributors": 1},
        {"quorum": 0},
        {"max_samples": 0},
    ],
)
def test_a_task_without_sense_is_refused(stage, terms):
    with refused("BadTerms"):
        stage.create(**terms)


def test_a_task_without_terms_is_refused(stage):
    with refused("BadTerms"):
        stage.connector.create_task(
            digest(0), rounds=1, min_contributors=2, quorum=1, max_samples=1
        )


def test_members_stand_in_the_roster_in_the_order_of_joining(stage, nodes):
    task_id = stage.create()
    for place, node in enumerate(nodes):
        stage.join(task_id, node, samples=10 + place)
    roster = stage.connector.members(task_id)
    assert [member.node for member in roster] == [node.address for node in nodes]
    assert [member.samples for member in roster] == [10, 11, 12]
    assert [member.sealing_key for member in roster] == [stage.keys[n.address] for n in nodes]
    assert stage.state(task_id).members == 3


def test_a_node_joins_once_and_its_commitment_is_never_replaced(stage, nodes):
    task_id = stage.create()
    stage.join(task_id, nodes[0], data_commitment=digest(1))
    with refused("AlreadyMember"):
        stage.join(task_id, nodes[0], data_commitment=digest(2))
    assert stage.connector.members(task_id)[0].data_commitment == digest(1)


@pytest.mark.parametrize("samples", [0, 1001])
def test_samples_out_of_range_are_refused(stage, nodes, samples):
    with refused("SamplesOutOfRange"):
        stage.join(stage.create(max_samples=1000), nodes[0], samples=samples)


def test_the_largest_number_of_samples_is_allowed(stage, nodes):
    stage.join(stage.create(max_samples=1000), nodes[0], samples=1000)


def test_a_member_must_commit_to_data(stage, nodes):
    with refused("ZeroDigest"):
        stage.join(stage.create(), nodes[0], data_commitment=digest(0))


def test_an_unregistered_node_cannot_join(stage):
    with refused("SealingKeyMismatch"):
        stage.join(stage.create(), new_node())
    with refused("SealingKeyMismatch"):
        stage.join(stage.create(), new_node(), sealing_key=digest(0))


def test_a_node_joins_with_the_key_that_it_registered(stage, nodes):
    with refused("SealingKeyMismatch"):
        stage.join(stage.create(), nodes[0], sealing_key=digest(5))


@pytest.mark.parametrize(
    "change", [{"samples": 99}, {"data_commitment": digest(3)}], ids=["samples", "data"]
)
def test_a_coordinator_cannot_change_what_a_node_signed(stage, nodes, change):
    task_id = stage.create()
    values = stage.membership(task_id, nodes[0]) | change
    with refused("WrongSigner"):
        stage.connector.join_task(task_id, nodes[0].address, **values)


def test_a_membership_of_one_task_is_none_of_another(stage, nodes):
    values = stage.membership(stage.create(), nodes[0])
    with refused("WrongSigner"):
        stage.connector.join_task(stage.create(), nodes[0].address, **values)


def test_nobody_can_be_joined_by_another(stage, nodes):
    task_id = stage.create()
    values = stage.membership(task_id, nodes[0]) | {"sealing_key": stage.keys[nodes[1].address]}
    with refused("WrongSigner"):
        stage.connector.join_task(task_id, nodes[1].address, **values)


@pytest.mark.parametrize(("min_contributors", "quorum"), [(3, 1), (2, 3)])
def test_a_task_needs_its_members_to_start(stage, nodes, min_contributors, quorum):
    task_id = stage.open_task(nodes[:2], min_contributors=min_contributors, quorum=quorum)
    with refused("TooFewMembers"):
        stage.connector.start_task(task_id)
    stage.join(task_id, nodes[2])
    stage.connector.start_task(task_id)
    assert stage.state(task_id).state == "running"


def test_records_are_chained_and_found_again(stage, nodes):
    task_id = stage.running_task(nodes)
    made = [stage.record(task_id, 1), stage.record(task_id, 2)]
    assert list(stage.connector.round_records(task_id)) == made
    assert stage.connector.round_record(task_id, 2, 1) == made[1]
    assert stage.connector.round_record(task_id, 2, 2) is None
    task = stage.state(task_id)
    assert (task.last_round, task.last_attempt, task.head) == (2, 1, made[1].head)


def test_a_later_attempt_supersedes_an_earlier_one_and_both_stay_visible(stage, nodes):
    task_id = stage.running_task(nodes)
    stage.record(task_id, 1, attempt=1)
    stage.record(task_id, 1, attempt=3)
    records = stage.connector.round_records(task_id)
    assert [(record.round, record.attempt) for record in records] == [(1, 1), (1, 3)]
    assert stage.state(task_id).last_attempt == 3
    with refused("OutOfOrder"):
        stage.record(task_id, 1, attempt=2)
    stage.record(task_id, 2, attempt=1)


@pytest.mark.parametrize(("round_number", "attempt"), [(0, 1), (1, 0), (2, 1), (3, 5)])
def test_the_first_record_is_of_round_one(stage, nodes, round_number, attempt):
    task_id = stage.running_task(nodes, rounds=3)
    with refused("OutOfOrder"):
        stage.record(task_id, round_number, attempt)


@pytest.mark.parametrize(("round_number", "attempt"), [(1, 9), (0, 9), (3, 0), (2, 1)])
def test_a_round_is_neither_skipped_nor_gone_back_to(stage, nodes, round_number, attempt):
    task_id = stage.running_task(nodes, rounds=3)
    stage.record(task_id, 1)
    stage.record(task_id, 2, attempt=2)
    with refused("OutOfOrder"):
        stage.record(task_id, round_number, attempt)


def test_no_round_beyond_the_last_is_recorded(stage, nodes):
    task_id = stage.finished_rounds(nodes, rounds=1)
    with refused("TooManyRounds"):
        stage.record(task_id, 2)


@pytest.mark.parametrize("digests", [(digest(0), digest(1)), (digest(1), digest(0))])
def test_a_record_of_nothing_is_refused(stage, nodes, digests):
    task_id = stage.running_task(nodes)
    with refused("ZeroDigest"):
        stage.connector.record_round(task_id, 1, 1, *digests)


def test_recording_the_same_again_is_success_and_something_else_an_alarm(stage, nodes):
    task_id = stage.running_task(nodes)
    first = stage.record(task_id, 1)
    assert stage.record(task_id, 1) == first
    with pytest.raises(RecordConflict):
        stage.connector.record_round(task_id, 1, 1, digest(1), digest(2001))
    with pytest.raises(RecordConflict):
        stage.connector.record_round(task_id, 1, 1, digest(1001), digest(1))
    # The contract says the same to a coordinator that does not look first.
    with refused("OutOfOrder"):
        stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(1), digest(2001)))
    assert len(stage.connector.round_records(task_id)) == 1


@pytest.mark.parametrize("signing", [2, 3])
def test_a_quorum_of_members_ends_a_task(stage, nodes, signing):
    task_id = stage.finished_rounds(nodes)
    ended = stage.finalise(task_id, nodes[:signing])
    assert (ended.model_digest, ended.metrics_digest) == (digest(7), digest(8))
    assert ended.signers == signing
    assert stage.connector.finalisation(task_id) == ended
    task = stage.state(task_id)
    assert (task.state, task.model_digest, task.head) == ("finalised", digest(7), ended.head)


def test_finalising_the_same_again_is_success_and_another_model_an_alarm(stage, nodes):
    task_id = stage.finished_rounds(nodes)
    ended = stage.finalise(task_id, nodes)
    assert stage.finalise(task_id, nodes[:2]) == ended
    last = stage.last_record(task_id)
    with pytest.raises(RecordConflict):
        stage.connector.finalise_task(task_id, last, digest(9), digest(8), {})


def test_too_few_signatures_end_nothing(stage, nodes, finished):
    with refused("QuorumMissed"):
        stage.finalise(finished, nodes[:1])


def test_no_task_ends_before_its_last_round(stage, nodes):
    task_id = stage.running_task(nodes, rounds=2)
    stage.record(task_id, 1)
    with refused("RoundsMissing"):
        stage.finalise(task_id, nodes)


def test_an_outsider_does_not_count(stage, nodes, finished):
    outsider = stage.registered_nodes(1)[0]
    with refused("NotMember"):
        stage.finalise(finished, [nodes[0], outsider])


def test_a_member_does_not_count_twice(stage, nodes, finished):
    signature = stage.model_signature(finished, nodes[0])
    with refused("SignersNotIncreasing"):
        stage.connector.finalise_task(
            finished,
            stage.last_record(finished),
            digest(7),
            digest(8),
            {nodes[0].address: signature, nodes[1].address: signature},
        )


def test_signers_come_in_the_order_of_their_addresses(stage, nodes, finished):
    low, high = in_signing_order(nodes)[:2]
    swapped = {
        low.address: stage.model_signature(finished, high),
        high.address: stage.model_signature(finished, low),
    }
    with refused("SignersNotIncreasing"):
        stage.connector.finalise_task(
            finished, stage.last_record(finished), digest(7), digest(8), swapped
        )


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
def test_signatures_over_anything_else_do_not_count(stage, nodes, finished, change):
    signatures = {node.address: stage.model_signature(finished, node, **change) for node in nodes}
    with pytest.raises(TransactionReverted) as refusal:
        stage.connector.finalise_task(
            finished, stage.last_record(finished), digest(7), digest(8), signatures
        )
    # Whom they recover to is anybody, so either check may be the first to fail.
    assert refusal.value.error_name in {"NotMember", "SignersNotIncreasing"}


@pytest.mark.parametrize("wrong", ["previous_head", "attempt", "manifest_digest", "updates_root"])
def test_the_last_record_must_be_the_one_on_the_chain(stage, nodes, finished, wrong):
    last = stage.last_record(finished)
    value = 2 if wrong == "attempt" else digest(99)
    changed = FinalRound(**(vars(last) | {wrong: value}))
    signatures = {n.address: stage.model_signature(finished, n) for n in nodes}
    with refused("HeadMismatch"):
        stage.connector.finalise_task(finished, changed, digest(7), digest(8), signatures)


@pytest.mark.parametrize("digests", [(digest(0), digest(8)), (digest(7), digest(0))])
def test_a_task_does_not_end_with_nothing(stage, nodes, finished, digests):
    with refused("ZeroDigest"):
        stage.connector.finalise_task(finished, stage.last_record(finished), *digests, {})


def test_a_reason_is_a_sentence_not_a_novel(stage):
    task_id = stage.create()
    with refused("ReasonTooLong"):
        stage.connector.cancel_task(task_id, "x" * 257)
    stage.connector.cancel_task(task_id, "x" * 256)


@pytest.mark.parametrize("members", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_round_costs_the_same_for_any_number_of_nodes(stage, nodes, members):
    roster = nodes + stage.registered_nodes(members - 3)
    task_id = stage.running_task(roster, rounds=3, min_contributors=members)
    gas = [stage.record(task_id, round_number).gas_used for round_number in (1, 2, 3)]
    assert max(gas) <= GAS_PER_RECORD
    assert abs(gas[1] - gas[2]) < 100
