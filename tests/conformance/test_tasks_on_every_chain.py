import threading

import pytest
from chain_stage import digest, new_node, refused

from twopm_flower.chain.base import FinalRound
from twopm_flower.errors import ChainError
from twopm_flower.records.chaining import roster_digest


def test_a_task_tells_what_was_agreed(stage):
    task_id = stage.create(rounds=4, min_contributors=3, quorum=2, max_samples=50)
    task = stage.state(task_id)
    assert (task.task_id, task.state) == (task_id, "open")
    assert task.coordinator == stage.connector.account
    assert (task.rounds, task.min_contributors, task.quorum, task.max_samples) == (4, 3, 2, 50)
    assert (task.last_round, task.last_attempt, task.members) == (0, 0, 0)
    assert (task.head, task.roster_digest) == (digest(0), digest(0))
    assert (task.terms_digest, task.model_digest) == (digest(77), None)
    assert stage.connector.members(task_id) == stage.connector.round_records(task_id) == ()


def test_tasks_with_the_same_terms_created_at_once_differ(stage, stranger):
    made = []
    threads = [
        threading.Thread(target=lambda someone=someone: made.append(someone.create()))
        for someone in (stage, stranger, stage, stranger)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4
    owners = sorted(stage.state(task_id).coordinator for task_id in made)
    assert owners == sorted([stage.connector.account, stranger.connector.account] * 2)


@pytest.mark.parametrize(
    "terms",
    [{"rounds": 0}, {"min_contributors": 1}, {"quorum": 0}, {"max_samples": 0}],
    ids=lambda terms: next(iter(terms)),
)
def test_a_task_without_sense_is_refused(stage, terms):
    with refused("BadTerms"):
        stage.create(**terms)


def test_a_task_without_terms_is_refused(stage):
    with refused("BadTerms"):
        stage.connector.create_task(
            digest(0), rounds=1, min_contributors=2, quorum=1, max_samples=1
        )


def test_a_number_that_does_not_fit_is_refused(stage):
    with pytest.raises(ChainError, match="createTask"):
        stage.create(rounds=2**32)


@pytest.mark.parametrize("bad", ["0x12", "12" * 32, "0x" + "zz" * 32, "", "0x" + "AB" * 32])
def test_a_digest_of_another_form_is_refused(stage, bad):
    with pytest.raises(ChainError):
        stage.connector.create_task(bad, rounds=1, min_contributors=2, quorum=1, max_samples=1)
    with pytest.raises(ChainError):
        stage.connector.task(bad)


def test_members_stand_in_the_roster_in_the_order_of_joining(stage, nodes):
    task_id = stage.create()
    for place, node in enumerate(nodes):
        stage.join(task_id, node, samples=10 + place)
    roster = stage.connector.members(task_id)
    assert [member.node for member in roster] == [node.address for node in nodes]
    assert [member.index for member in roster] == [0, 1, 2]
    assert [member.samples for member in roster] == [10, 11, 12]
    assert [member.sealing_key for member in roster] == [stage.keys[n.address] for n in nodes]
    assert stage.state(task_id).members == 3
    assert stage.state(task_id).roster_digest == roster_digest(roster)


def test_a_node_joins_once_and_its_commitment_is_never_replaced(stage, nodes, opened):
    before = stage.connector.members(opened)
    with refused("AlreadyMember"):
        stage.join(opened, nodes[0], data_commitment=digest(2))
    assert stage.connector.members(opened) == before


@pytest.fixture(scope="session")
def empty(stage):
    """An open task that nobody gets into."""
    return stage.create(max_samples=1000)


@pytest.mark.parametrize("samples", [0, 1001])
def test_samples_out_of_range_are_refused(stage, nodes, empty, samples):
    with refused("SamplesOutOfRange"):
        stage.join(empty, nodes[0], samples=samples)


def test_the_largest_number_of_samples_is_allowed(stage, nodes):
    stage.join(stage.create(max_samples=1000), nodes[0], samples=1000)


def test_a_member_must_commit_to_data(stage, nodes, empty):
    with refused("ZeroDigest"):
        stage.join(empty, nodes[0], data_commitment=digest(0))


def test_only_who_is_registered_joins_and_with_the_registered_key(stage, nodes, empty):
    with refused("SealingKeyMismatch"):
        stage.join(empty, new_node())
    with refused("SealingKeyMismatch"):
        stage.join(empty, new_node(), sealing_key=digest(0))
    with refused("SealingKeyMismatch"):
        stage.join(empty, nodes[0], sealing_key=digest(5))


def test_who_left_the_register_remains_a_member_and_joins_nothing_else(stage, empty):
    node = stage.registered_nodes(1)[0]
    task_id = stage.create()
    stage.join(task_id, node)
    stage.depart(node)
    assert [member.node for member in stage.connector.members(task_id)] == [node.address]
    with refused("SealingKeyMismatch"):
        stage.join(empty, node)


@pytest.mark.parametrize(
    "change", [{"samples": 99}, {"data_commitment": digest(3)}], ids=["samples", "data"]
)
def test_a_coordinator_cannot_change_what_a_node_signed(stage, nodes, empty, change):
    values = stage.membership(empty, nodes[0]) | change
    with refused("WrongSigner"):
        stage.connector.join_task(empty, nodes[0].address, **values)


def test_a_membership_of_one_task_is_none_of_another(stage, nodes, opened, empty):
    values = stage.membership(opened, nodes[0])
    with refused("WrongSigner"):
        stage.connector.join_task(empty, nodes[0].address, **values)


def test_an_outsider_cannot_join_in_a_nodes_name(stage, nodes, empty):
    values = stage.membership(empty, nodes[0]) | {"sealing_key": stage.keys[nodes[1].address]}
    with refused("WrongSigner"):
        stage.connector.join_task(empty, nodes[1].address, **values)


@pytest.mark.parametrize(("min_contributors", "quorum"), [(3, 1), (2, 3)])
def test_a_task_needs_its_members_to_start(stage, nodes, min_contributors, quorum):
    task_id = stage.open_task(nodes[:2], min_contributors=min_contributors, quorum=quorum)
    with refused("TooFewMembers"):
        stage.connector.start_task(task_id)
    stage.join(task_id, nodes[2])
    stage.connector.start_task(task_id)
    assert stage.state(task_id).state == "running"


def test_a_reason_is_a_sentence_not_a_novel(stage):
    task_id = stage.create()
    with refused("ReasonTooLong"):
        stage.connector.cancel_task(task_id, "x" * 257)
    stage.connector.cancel_task(task_id, "ü" * 128)
    assert stage.state(task_id).state == "cancelled"


def tries(stage, nodes):
    """Everything that a coordinator can do with a task."""
    nothing = (FinalRound(digest(0), 1, digest(1), digest(2)), digest(7), digest(9), {})
    return {
        "join": lambda task_id: stage.join(task_id, nodes[0]),
        "start": stage.connector.start_task,
        "record": lambda task_id: stage.connector.record_round(task_id, 1, 9, digest(1), digest(2)),
        "attest": lambda task_id: stage.connector.attest_model(task_id, *nothing),
        "finalise": lambda task_id: stage.connector.finalise_task(task_id, *nothing),
        "cancel": lambda task_id: stage.connector.cancel_task(task_id, "no longer needed"),
    }


@pytest.mark.parametrize(
    ("where", "whats"),
    [
        ("opened", ["record", "attest", "finalise"]),
        ("running", ["join", "start"]),
        ("finalised", ["join", "start", "record", "attest", "cancel"]),
        ("cancelled", ["join", "start", "record", "attest", "finalise", "cancel"]),
    ],
)
def test_what_a_task_does_not_allow_where_it_stands_is_refused(stage, nodes, request, where, whats):
    task_id = request.getfixturevalue(where)
    before = stage.state(task_id)
    for what in whats:
        with refused("WrongState"):
            tries(stage, nodes)[what](task_id)
    assert stage.state(task_id) == before


def test_an_open_task_can_be_cancelled_and_does_not_come_back(stage, nodes):
    task_id = stage.create()
    stage.connector.cancel_task(task_id, "too few nodes")
    with refused("WrongState"):
        stage.join(task_id, nodes[0])
    with refused("WrongState"):
        stage.connector.start_task(task_id)


def test_only_the_coordinator_moves_a_task(stage, stranger, nodes, opened, running):
    for what, task_id in (
        ("join", opened),
        ("start", opened),
        ("record", running),
        ("attest", running),
        ("finalise", running),
        ("cancel", running),
    ):
        with refused("NotCoordinator"):
            tries(stranger, nodes)[what](task_id)
    assert stage.state(opened).state == "open"
    assert stage.state(running).state == "running"


@pytest.mark.parametrize("what", ["start", "record", "finalise", "cancel"])
def test_a_task_that_was_never_created_is_unknown(stage, nodes, what):
    with refused("UnknownTask"):
        tries(stage, nodes)[what](digest(4))
    with refused("UnknownTask"):
        stage.state(digest(4))
