from dataclasses import replace

import pytest
from chain_stage import digest

from twopm_flower.chain.ledger_state import LedgerState


@pytest.fixture(scope="session")
def told(stage, stranger, nodes, opened, running, finished, finalised, cancelled):
    """All events of a chain on which everything has happened."""
    node = stage.registered_nodes(1)[0]
    stage.publish(node, 1)
    stage.publish(node, 2)
    stage.depart(node)
    attested = stage.running_task(nodes, rounds=1)
    stage.record(attested, 1)
    stage.attest(attested, nodes)
    stranger.connector.anchor_receipts(digest(300), 3)
    return stage.connector.events(0, stage.connector.head_block())


@pytest.fixture(scope="session")
def rebuilt(told):
    state = LedgerState()
    for event in told:
        state.take(event)
    return state


def test_everything_that_happens_is_told(told):
    assert {event.name for event in told} == {
        "node_registered",
        "node_left",
        "data_published",
        "task_created",
        "member_joined",
        "task_started",
        "round_recorded",
        "model_attested",
        "task_finalised",
        "task_cancelled",
        "receipts_anchored",
    }
    reasons = [event.values["reason"] for event in told if event.name == "task_cancelled"]
    assert "too few nodes" in reasons


def test_events_come_in_order_each_once_and_say_where_they_stand(stage, told):
    places = [(event.block_number, event.index) for event in told]
    assert places == sorted(set(places))
    for event in told[:: max(1, len(told) // 10)]:
        assert event.block_hash == stage.connector.block_hash(event.block_number)


def test_any_ranges_of_blocks_add_up_to_the_whole(stage, told):
    last = told[-1].block_number
    for cut in (0, last // 3, last - 1):
        parts = stage.connector.events(0, cut) + stage.connector.events(cut + 1, last)
        assert parts == told
    assert stage.connector.events(2, 1) == ()
    assert stage.connector.block_hash(last + 1000) is None


def test_what_the_chain_stores_of_tasks_can_be_rebuilt_from_events(stage, told, rebuilt):
    created = [event.values["task_id"] for event in told if event.name == "task_created"]
    assert len(created) >= 5
    for task_id in created[-8:]:
        task = rebuilt.tasks[task_id]
        assert task.state == stage.connector.task(task_id)
        assert tuple(task.members.values()) == stage.connector.members(task_id)
        records = [replace(r, gas_used=None) for r in stage.connector.round_records(task_id)]
        assert task.records == records
        assert tuple(task.attestations) == stage.connector.attestations(task_id)
        assert task.finalisation == stage.connector.finalisation(task_id)


def test_what_the_chain_stores_of_nodes_can_be_rebuilt_from_events(stage, stranger, rebuilt):
    assert rebuilt.registered_nodes() == stage.connector.nodes()
    for node, record in list(rebuilt.nodes.items())[-4:]:
        assert record.sealing_key == stage.connector.registered_key(node)
        assert record.nonce == stage.connector.registration_nonce(node)
        known = rebuilt.data.get(node, ())
        assert tuple(known) == stage.connector.data_commitments(node)
    issuer = stranger.connector.account
    anchor = stage.connector.receipt_anchor(issuer, digest(300))
    assert rebuilt.anchors[issuer, digest(300)] == anchor
