"""A malicious server replays, goes back, or lies about the chain: nodes remember."""

from dataclasses import replace

import pytest
from federation import NOBODY
from flwr.app import MessageType
from lies import assert_stopped, assert_unharmed, run_into_refusal

from twopm_flower.chain.base import RoundRecord, TaskState
from twopm_flower.chain.outbox import Outbox
from twopm_flower.config import NodeSettings
from twopm_flower.errors import ChainUnavailable, ProtocolViolation, QuorumError
from twopm_flower.federated import wire
from twopm_flower.federated.anchor import await_anchor
from twopm_flower.federated.exchange import CloseOrder, EvaluateOrder, TrainOrder
from twopm_flower.federated.progress import Pending, Progress
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import Exclusion

A, B, C = ("0x" + f"{digit}{digit}" * 32 for digit in "abc")


def remember(seen, kind, round_):
    """Return a lie that keeps the order of a round and changes nothing."""

    def keep(order, index):
        number = order.round if isinstance(order, TrainOrder) else None
        if isinstance(order, EvaluateOrder):
            number = order.manifest.round
        if isinstance(order, kind) and number == round_:
            seen[index] = order
        return order

    return keep


def replay(seen, kind, in_round, victim):
    """Return a lie that shows one node its order of an earlier round again."""

    def show_again(order, index):
        number = order.round if isinstance(order, TrainOrder) else None
        if isinstance(order, EvaluateOrder):
            number = order.manifest.round
        return seen[index] if (kind, in_round, victim) == (type(order), number, index) else order

    return show_again


def test_the_train_order_of_an_earlier_round_stops_the_node(federate):
    federation = federate(rounds=4)
    seen = {}
    federation.make_grid().orders += [
        remember(seen, TrainOrder, 2),
        replay(seen, TrainOrder, 4, victim=1),
    ]
    federation.run()
    assert_stopped(federation.nodes[1], "the server goes back to round 1", opened=2)
    assert_unharmed(federation.nodes[0], opened=4)


def test_the_manifest_of_an_earlier_round_stops_the_node(federate):
    federation = federate(rounds=2)
    seen = {}
    federation.make_grid().orders += [
        remember(seen, EvaluateOrder, 1),
        replay(seen, EvaluateOrder, 2, victim=1),
    ]
    federation.run()
    stopped = federation.nodes[1]
    assert stopped.progress.halted is not None
    assert stopped.progress.opened_round == 1
    assert "2/1" not in stopped.progress.fingerprinted


def test_a_manifest_of_another_task_with_the_same_nodes_stops_the_node(federate):
    first, second = federate(), federate()
    seen = {}
    first.make_grid().orders.append(remember(seen, EvaluateOrder, 1))
    first.run()

    def other_task(order, index):
        if not isinstance(order, EvaluateOrder) or index != 1:
            return order
        foreign = seen[index]
        return replace(order, manifest=foreign.manifest, updates=foreign.updates)

    second.make_grid().orders.append(other_task)
    second.run()
    assert_stopped(second.nodes[1], "the manifest's task_id is")


@pytest.mark.slow
def test_update_statements_of_another_task_stop_the_node(federate):
    first, second = federate(), federate()
    seen = {}
    first.make_grid().orders.append(remember(seen, EvaluateOrder, 1))
    first.run()

    def other_updates(order, index):
        if not isinstance(order, EvaluateOrder) or index != 1:
            return order
        return replace(order, updates=seen[index].updates)

    second.make_grid().orders.append(other_updates)
    second.run()
    assert_stopped(second.nodes[1], "signed task_id")


def test_a_second_survivor_set_of_the_same_attempt_gets_no_fingerprints(federate):
    federation = federate()
    grid = federation.make_grid()
    answers = {}

    def ask_twice(deliver, message, index):
        order = wire.parse_order(message.content)
        reply = deliver(message)
        if index == 0 and isinstance(order, EvaluateOrder) and order.manifest.round == 1:
            message.content = without_last(order, federation)
            answers["second"] = deliver(message)
        return reply

    grid.messages.append(ask_twice)
    federation.run()
    assert answers["second"].has_error()
    assert_stopped(federation.nodes[0], "two manifests for round 1, attempt 1")


def without_last(order, federation):
    from lies import changed

    manifest = order.manifest
    last = manifest.survivors[-1]
    survivors = manifest.survivors[:-1]
    smaller = changed(
        manifest,
        survivors=survivors,
        exclusions=(Exclusion(node=last.node, reason="late", detail=""),),
        samples=federation.roster.samples_of([s.node for s in survivors]),
        aggregate_digest="0x" + "22" * 32,
    )
    content = replace(order, manifest=smaller, updates=order.updates[:-1])
    return wire.order_content(content, arrays_key="arrays", config_key="config")


def test_a_round_that_was_opened_is_never_signed_for_again():
    progress = Progress(opened_round=2, opened_manifest=A)
    with pytest.raises(ProtocolViolation, match="round 2 was opened already"):
        progress.with_fingerprint(2, 2, B)
    with pytest.raises(ProtocolViolation, match="round 1 was opened already"):
        progress.with_fingerprint(1, 1, B)


def test_the_same_manifest_may_be_shown_again():
    progress = Progress().with_fingerprint(1, 1, A)
    assert progress.with_fingerprint(1, 1, A) == progress
    with pytest.raises(ProtocolViolation, match="two manifests for round 1, attempt 1"):
        progress.with_fingerprint(1, 1, B)


def test_an_attempt_that_a_later_one_superseded_is_not_opened_any_more():
    progress = Progress().with_fingerprint(1, 1, A).with_fingerprint(1, 2, B)
    with pytest.raises(ProtocolViolation, match="attempt 1 of round 1 was superseded"):
        progress.with_fingerprint(1, 1, A)


def test_an_opening_under_another_manifest_than_the_one_opened_is_refused(federate):
    federation = federate(rounds=2)
    grid = federation.make_grid()

    def shown_another(order, index):
        if isinstance(order, TrainOrder) and order.round == 2 and index == 1:
            first = federation.nodes[1].progress
            if first.opened_round == 1:
                (opening,) = order.openings
                other = opening.manifest.model_copy(update={"aggregate_digest": C})
                return replace(order, openings=(replace(opening, manifest=other),))
        return order

    def twice(deliver, message, index):
        reply = deliver(message)
        order = wire.parse_order(message.content)
        if index == 1 and isinstance(order, TrainOrder) and order.round == 2:
            message.content = wire.order_content(
                shown_another(order, index), arrays_key="arrays", config_key="config"
            )
            reply = deliver(message)
        return reply

    grid.messages.append(twice)
    federation.run()
    assert_stopped(federation.nodes[1], "the server now shows another", opened=1)


def test_a_closing_before_the_last_round_is_refused(federate):
    federation = federate(rounds=3)
    grid = federation.make_grid()

    def close_early(deliver, message, index):
        order = wire.parse_order(message.content)
        if index == 1 and isinstance(order, TrainOrder) and order.round == 2:
            early = CloseOrder(
                task_id=order.task_id,
                config={"server-round": 1},
                initial={},
                openings=order.openings,
            )
            message.content = wire.order_content(early, arrays_key="arrays", config_key="config")
            message.metadata.message_type = MessageType.EVALUATE
        return deliver(message)

    grid.messages.append(close_early)
    federation.run()
    assert_stopped(federation.nodes[1], "the closing exchange opens round 1, the task has 3")


# --- the chain -------------------------------------------------------------------------------


def test_another_record_on_chain_than_the_manifest_shown_stops_every_node(federate):
    federation = federate()
    connector = federation.stage.connector
    connector.record_round(federation.task_id, 1, 1, A, B)
    run_into_refusal(federation)
    for node in federation.nodes:
        assert_stopped(node, f"the chain records manifest {A} for round 1, attempt 1")


@pytest.fixture
def silent_outbox(monkeypatch):
    """Let nothing reach the chain."""

    def nobody(self, connector, *, receipt_timeout_s=None):
        raise ChainUnavailable("nobody answers")

    monkeypatch.setattr(Outbox, "deliver", nobody)


def test_a_server_that_does_not_record_is_refused_after_the_tolerated_rounds(
    federate, silent_outbox
):
    federation = federate(rounds=3)
    for node in federation.nodes:
        node.configure(max_unrecorded_rounds=1, anchor_wait_s=0.05)
    error = run_into_refusal(federation, max_unrecorded_rounds=100, max_attempts=1)

    assert "no attempt of 1 was completed" in str(error)
    for node in federation.nodes:
        # Nobody lied: as soon as the records are there the node may go on.
        assert node.progress.halted is None
        assert node.progress.opened_round == 1
        assert [entry.round for entry in node.progress.pending] == [1, 2]
    refusals = {reply.error.reason for _, reply in federation.grid.replied if reply.has_error()}
    assert len(refusals) == 1
    assert "rounds [1, 2] are not on chain" in refusals.pop()


@pytest.mark.slow
def test_a_strict_node_tolerates_no_unrecorded_round(federate, silent_outbox):
    federation = federate(rounds=2)
    for node in federation.nodes:
        node.configure(anchor="strict", anchor_wait_s=0.05)
    run_into_refusal(federation, max_unrecorded_rounds=100, max_attempts=1)
    for node in federation.nodes:
        assert node.progress.opened_round == 0
        assert node.progress.halted is None


def test_strict_nodes_wait_for_each_record_and_finish(federate, caplog):
    federation = federate(rounds=2)
    for node in federation.nodes:
        node.configure(anchor="strict", anchor_wait_s=60.0)
    with caplog.at_level("WARNING"):
        federation.run()
    assert not [r for r in caplog.records if "not on chain yet" in r.getMessage()]
    for node in federation.nodes:
        assert_unharmed(node, opened=2)
        assert node.progress.pending == ()


@pytest.mark.slow
def test_a_node_whose_own_endpoint_is_down_goes_on_for_the_tolerated_rounds(federate):
    federation = federate(rounds=2)
    federation.nodes[1].lose_the_chain()
    federation.run()
    node = federation.nodes[1]
    assert NOBODY in (node.home.path / "config.toml").read_text()
    assert_unharmed(node, opened=2)
    assert [entry.round for entry in node.progress.pending] == [1, 2]


class ScriptedChain:
    """A record that appears at the n-th look."""

    def __init__(self, record: RoundRecord, at_look: int) -> None:
        self.record, self.at_look, self.looks = record, at_look, 0

    def round_record(self, task_id, round_number, attempt):
        self.looks += 1
        return self.record if self.looks >= self.at_look else None

    def task(self, task_id):
        """Return a task without any record."""
        return TaskState(
            task_id=task_id,
            coordinator="0x" + "00" * 20,
            terms_digest=A,
            state="running",
            rounds=2,
            last_round=0,
            last_attempt=0,
            head=ZERO_DIGEST,
            roster_digest=B,
            members=4,
            min_contributors=3,
            quorum=3,
            max_samples=40,
            model_digest=None,
        )


def record_of(manifest_digest, updates_root):
    return RoundRecord(
        task_id=A,
        round=1,
        attempt=1,
        manifest_digest=manifest_digest,
        updates_root=updates_root,
        head=C,
        block_number=1,
        block_hash=C,
        transaction_hash=C,
        gas_used=1,
    )


PENDING = (Pending(round=1, attempt=1, manifest_digest=A, updates_root=B),)


def test_strict_waiting_ends_when_the_record_appears():
    now = [0.0]
    chain = ScriptedChain(record_of(A, B), at_look=4)
    policy = NodeSettings(anchor="strict", anchor_wait_s=300)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    assert await_anchor(A, PENDING, chain, policy, clock=lambda: now[0], sleep=sleep) == ()
    assert len(slept) == 3


def test_strict_waiting_has_a_bound():
    now = [0.0]
    chain = ScriptedChain(record_of(A, B), at_look=10**9)
    policy = NodeSettings(anchor="strict", anchor_wait_s=300)

    def sleep(seconds):
        now[0] += seconds

    with pytest.raises(QuorumError, match=r"rounds \[1\] are not on chain after 300 s"):
        await_anchor(A, PENDING, chain, policy, clock=lambda: now[0], sleep=sleep)
    assert 300 <= now[0] <= 302


@pytest.mark.parametrize(("manifest", "root"), [(C, B), (A, C)], ids=["manifest", "root"])
def test_any_difference_between_record_and_manifest_is_a_violation(manifest, root):
    chain = ScriptedChain(record_of(manifest, root), at_look=1)
    with pytest.raises(ProtocolViolation, match="the chain records"):
        await_anchor(A, PENDING, chain, NodeSettings())
