"""A server that goes beyond the exchanges that were agreed: nodes refuse, and reveal nothing."""

from dataclasses import replace

import pytest
from federation import Federation
from flwr.app import MessageType
from lies import assert_stopped, assert_unharmed, changed, run_into_refusal
from moments import Moment
from tiny_app import initial_weights, measure, tiny_app

from twopm_flower.federated import wire
from twopm_flower.federated.aggregator import RoundAggregator
from twopm_flower.federated.exchange import EvaluateOrder, Opening, TrainOrder
from twopm_flower.records.manifest import Exclusion
from twopm_flower.verify import verify_bundle

A, B, C, D = ("0x" + f"{digit}{digit}" * 32 for digit in "abcd")
MOMENTS = [("train", 1), ("train", 2), ("evaluate", 1), ("evaluate", 2), ("close", 0)]


def made_up(opening, roster, keep):
    """Return an opening of the same round for a smaller group."""
    manifest = opening.manifest
    gone = manifest.survivors[keep:]
    return replace(
        opening,
        manifest=changed(
            manifest,
            survivors=manifest.survivors[:keep],
            exclusions=tuple(Exclusion(node=s.node, reason="late", detail="") for s in gone),
            samples=roster.samples_of(manifest.nodes[:keep]),
        ),
        updates=opening.updates[:keep],
        fingerprints=opening.fingerprints[:keep],
    )


def refused(moment, order, folder, because, *, opened):
    """Show a node an order; it sends nothing, and stops."""
    reply, node = moment.show(order, folder)
    assert reply.has_error()
    assert because in reply.error.reason
    assert_stopped(node, because, opened=opened)
    assert node.progress.evaluated == moment.node.progress.evaluated
    assert node.progress.update == moment.node.progress.update
    assert node.progress.fingerprinted.keys() == moment.node.progress.fingerprinted.keys()


# --- groups that were made up ----------------------------------------------------------------


@pytest.mark.parametrize("keep", [2, 3], ids=["a pair", "enough contributors"])
def test_a_second_opening_of_the_last_round_gets_no_evaluation_masked_for_its_group(
    recorded, tmp_path, keep
):
    moment = recorded.at("close", 0)
    real = moment.order.openings[-1]
    fake = made_up(real, recorded.federation.roster, keep)
    order = replace(moment.order, openings=(*moment.order.openings, fake))
    refused(moment, order, tmp_path, "not in order", opened=1)


@pytest.mark.parametrize("keep", [2, 3], ids=["a pair", "enough contributors"])
def test_another_opening_of_a_round_that_was_opened_gets_no_evaluation_either(
    recorded, tmp_path, keep
):
    moment = recorded.at("close", 0)
    _, closed = moment.show(moment.order, tmp_path)
    fake = made_up(moment.order.openings[-1], recorded.federation.roster, keep)
    order = replace(moment.order, openings=(fake,))
    refused(
        Moment(closed, order),
        order,
        tmp_path / "again",
        "the server now shows another",
        opened=2,
    )


def test_a_second_opening_shown_to_nodes_that_train_stops_them_too(recorded, tmp_path):
    moment = recorded.at("train", 2)
    (real,) = moment.order.openings
    fake = made_up(real, recorded.federation.roster, 3)
    order = replace(moment.order, openings=(real, fake))
    refused(moment, order, tmp_path, "not in order", opened=0)


def test_when_all_are_shown_a_made_up_group_at_the_end_nothing_becomes_final(federate):
    federation = federate(rounds=1)

    def add_a_group(order, index):
        if isinstance(order, TrainOrder | EvaluateOrder):
            return order
        fake = made_up(order.openings[-1], federation.roster, 2)
        return replace(order, openings=(*order.openings, fake))

    federation.make_grid().orders.append(add_a_group)
    run_into_refusal(federation)
    for node in federation.nodes:
        assert_stopped(node, "not in order")
    assert federation.stage.reader().task(federation.task_id).state != "finalised"


# --- the app's other function ----------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]} {moment[1]}")
def test_an_order_in_a_message_for_the_apps_other_function_is_refused(recorded, tmp_path, moment):
    called = []

    def note(message, context, content):
        called.append(message)
        return content

    at = recorded.at(*moment)
    swapped = MessageType.EVALUATE if moment[0] == "train" else MessageType.TRAIN
    app = tiny_app({0: note}, {0: note})
    reply, node = at.show(at.order, tmp_path, app, message_type=swapped)
    assert reply.has_error()
    assert "carries an order for" in reply.error.reason
    assert called == []
    assert node.progress == at.node.progress


def test_metrics_of_training_rows_never_pass_for_held_out_ones(federate):
    federation = federate(rounds=1)

    def swap(deliver, message, index):
        if not isinstance(wire.parse_order(message.content), TrainOrder):
            message.metadata.message_type = MessageType.TRAIN
        return deliver(message)

    federation.make_grid().messages.append(swap)
    run_into_refusal(federation)
    for node in federation.nodes:
        assert node.progress.evaluated == ()
        assert node.progress.fingerprinted == {}


# --- rounds beyond the last ------------------------------------------------------------------


@pytest.fixture
def finished(recorded, tmp_path):
    """Return node 0 after its last exchange, with the orders that a greedy server starts from."""
    moment = recorded.at("close", 0)
    _, node = moment.show(moment.order, tmp_path / "finished")
    return Moment(node, moment.order)


def test_training_beyond_the_last_round_is_refused(recorded, finished, tmp_path):
    last = recorded.at("train", 2).order
    order = replace(
        last,
        round=3,
        config={**last.config, "server-round": 3},
        openings=finished.order.openings,
    )
    refused(finished, order, tmp_path, "round 3, the task has 2", opened=2)


def test_a_node_that_still_has_to_open_the_last_round_does_not_train_beyond_it_either(
    recorded, tmp_path
):
    moment = recorded.at("close", 0)
    last = recorded.at("train", 2).order
    order = replace(
        last,
        round=3,
        config={**last.config, "server-round": 3},
        openings=moment.order.openings,
    )
    refused(moment, order, tmp_path, "round 3, the task has 2", opened=1)


def beyond(recorded, finished):
    """Return the manifest of a round that the terms do not have, which fits all else."""
    last = recorded.at("evaluate", 2).order.manifest
    progress = finished.node.progress
    return changed(
        last,
        round=3,
        previous_manifest=progress.opened_manifest,
        base_model=progress.model_digest,
        survivors=last.survivors,
    )


def test_a_manifest_beyond_the_last_round_gets_no_fingerprints(recorded, finished, tmp_path):
    last = recorded.at("evaluate", 2).order
    order = replace(
        last,
        config={**last.config, "server-round": 3},
        manifest=beyond(recorded, finished),
    )
    refused(finished, order, tmp_path, "of round 3, the task has 2", opened=2)


def test_an_opening_beyond_the_last_round_is_not_decrypted(recorded, finished, tmp_path):
    (real,) = finished.order.openings
    extra = Opening(
        manifest=beyond(recorded, finished),
        updates=real.updates,
        fingerprints=real.fingerprints,
        aggregate=real.aggregate,
    )
    last = recorded.at("train", 2).order
    order = replace(last, openings=(extra,))
    refused(finished, order, tmp_path, "of round 3, the task has 2", opened=2)


# --- what the chain has already --------------------------------------------------------------


@pytest.mark.parametrize(
    "records", [((1, 7),), ((1, 7), (2, 1))], ids=["a later attempt", "a later round"]
)
def test_a_chain_that_has_gone_on_without_the_attempt_shown_stops_the_nodes(federate, records):
    federation = federate(rounds=2)
    grid = federation.make_grid()
    recorded_ahead = []

    def record_ahead(order, index):
        if isinstance(order, EvaluateOrder) and not recorded_ahead:
            recorded_ahead.append(order)
            for round_, attempt in records:
                federation.stage.connector.record_round(
                    federation.task_id, round_, attempt, A if round_ == 1 else C, B
                )
        return order

    grid.orders.append(record_ahead)
    run_into_refusal(federation, max_attempts=1)
    for node in federation.nodes:
        assert_stopped(node, "the chain goes on beyond round 1, attempt 1")


# --- later attempts --------------------------------------------------------------------------


def lose_fingerprints(federation, victim):
    """Have the server lose one node's fingerprints of attempt 1, and its update of attempt 2."""

    def lose(deliver, message, index):
        order = wire.parse_order(message.content)
        match order:
            case EvaluateOrder() if index == victim and order.manifest.round == 1:
                deliver(message)
                return None
            case TrainOrder(round=1, attempt=2) if index == victim:
                return None
        return deliver(message)

    federation.make_grid().messages.append(lose)


def test_the_metrics_of_a_later_attempt_are_not_reported(federate):
    federation = federate(rounds=2)
    lose_fingerprints(federation, victim=3)
    result = federation.run()
    first, second = federation.bundle().rounds
    assert [first.manifest.attempt, second.manifest.attempt] == [2, 1]
    assert sorted(result.train_metrics_clientapp) == [2]
    assert set(first.metrics.sums.values()) == {0}
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure
    assert [metrics.training is None for metrics in report.metrics] == [True, True, False]


def test_the_sums_of_two_attempts_of_a_round_do_not_differ_by_one_nodes_metrics(
    federate, monkeypatch
):
    federation = federate(rounds=2)
    victim = 3
    sums = opened_sums_of_two_attempts(federation, victim, monkeypatch)
    counted = [measure(initial_weights(), n.index, held_out=False) for n in federation.nodes]
    assert sums[victim]["correct"] == sum(metrics["correct"] for metrics in counted)
    assert set(sums[0].values()) == {0}


def opened_sums_of_two_attempts(federation: Federation, victim, monkeypatch):
    """Have the victim open attempt 1 and the others attempt 2; return what each reports."""
    aggregates, fingerprints, reported = {}, {}, {}
    honest = RoundAggregator.finish

    def keep(self):
        aggregate = honest(self)
        aggregates[aggregate.manifest.round, aggregate.manifest.attempt] = aggregate
        return aggregate

    monkeypatch.setattr(RoundAggregator, "finish", keep)

    def split(deliver, message, index):
        order = wire.parse_order(message.content)
        match order:
            case TrainOrder(round=1, attempt=2) if index == victim:
                return None
            case EvaluateOrder() if index == victim and order.manifest.attempt == 2:
                return None
        reply = deliver(message)
        match order:
            case EvaluateOrder() if (order.manifest.round, order.manifest.attempt) == (1, 1):
                signed = wire.parse_evaluate_reply(reply.content).fingerprint
                fingerprints[signed.node] = signed
                return None if index == victim else reply
            case TrainOrder(round=2) if not reply.has_error():
                (report,) = wire.parse_train_reply(reply.content).reports
                reported[index] = report.metrics.sums
        return reply

    def show_the_first(order, index):
        if not isinstance(order, TrainOrder) or order.round != 2 or index != victim:
            return order
        first = aggregates[1, 1]
        opening = Opening(
            manifest=first.manifest,
            updates=tuple(update.statement for update in first.updates),
            fingerprints=tuple(fingerprints[node] for node in first.manifest.nodes),
            aggregate=first.frame,
        )
        return replace(order, openings=(opening,))

    grid = federation.make_grid()
    grid.messages.append(split)
    grid.orders.append(show_the_first)
    federation.run()
    assert_unharmed(federation.nodes[0], opened=2)
    return reported
