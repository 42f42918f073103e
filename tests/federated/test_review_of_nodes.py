"""Members that attack the run itself: it goes on without them, or ends and says why."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import MetricRecord
from lies import assert_unharmed, run_into_refusal
from tiny_app import tiny_app

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import CloseOrder, EvaluateOrder
from twopm_flower.privacy.layout import Layout
from twopm_flower.records.statements import sign
from twopm_flower.verify import verify_bundle

BAD = 3
"""The node that attacks in these tests; three honest ones are left."""
OTHER = "0x" + "11" * 32


def on_evaluation(federation, kind, change):
    """Let the bad node's evaluations pass through `change` on their way out."""

    def tamper(deliver, message, index):
        order = wire.parse_order(message.content)
        reply = deliver(message)
        if index == BAD and isinstance(order, kind) and not reply.has_error():
            parsed = wire.parse_evaluate_reply(reply.content)
            reply.content = wire.reply_content(change(order, parsed))
        return reply

    federation.make_grid().messages.append(tamper)


def assert_verified(federation):
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure
    return report


# --- fingerprints under a wrong name ---------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("attempt", 2), ("round", 2), ("task_id", OTHER)], ids=lambda v: str(v)[:8]
)
def test_right_fingerprints_signed_for_another_attempt_round_or_task_count_as_none(
    federate, field, value
):
    federation = federate(rounds=1)
    bad = federation.nodes[BAD]

    def mislabel(order, reply):
        if reply.fingerprint is None:
            return reply
        statement = reply.fingerprint.statement.model_copy(update={field: value})
        domain = federation.stage.deployment.domain
        return replace(reply, fingerprint=sign(statement, bad.home.signer, domain))

    on_evaluation(federation, EvaluateOrder, mislabel)
    federation.run()

    (entry,) = federation.bundle().rounds
    assert entry.manifest.attempt == 2
    assert bad.address not in entry.manifest.nodes
    for node in federation.nodes:
        assert_unharmed(node, opened=1)
    assert_verified(federation)


# --- evaluations that cannot be --------------------------------------------------------------


def test_noise_in_a_masked_evaluation_costs_one_models_metrics_only(federate, caplog):
    federation = federate(rounds=2)
    bad = federation.nodes[BAD]

    def add_noise(order, reply):
        if order.manifest.round != 1:
            return reply
        statement = reply.evaluation.statement
        noise = tuple((word + 2**63) % 2**64 for word in statement.masked)
        statement = statement.model_copy(update={"masked": noise})
        domain = federation.stage.deployment.domain
        return replace(reply, evaluation=sign(statement, bad.home.signer, domain))

    on_evaluation(federation, EvaluateOrder, add_noise)
    with caplog.at_level(logging.WARNING):
        result = federation.run()

    assert sorted(result.evaluate_metrics_clientapp) == [1, 2]
    assert [bool(entry.evaluations) for entry in federation.bundle().rounds] == [False, True]
    assert_one_alarm(caplog, "evaluation of model 0")
    report = assert_verified(federation)
    assert [metrics.evaluation is None for metrics in report.metrics] == [True, False, False]


def test_an_app_with_more_correct_rows_than_rows_costs_its_models_metrics_only(federate, caplog):
    federation = federate(rounds=1)

    def boast(message, context, content):
        content["metrics"] = MetricRecord({"num-examples": 0, "correct": 1_000_000, "loss": 0.0})
        return content

    with caplog.at_level(logging.WARNING):
        result = federation.run(tiny_app(evaluations={BAD: boast}))

    assert dict(result.evaluate_metrics_clientapp) == {}
    assert federation.bundle().rounds[0].evaluations == ()
    assert federation.bundle().closing == ()
    alarms = [r.getMessage() for r in caplog.records if "ALARM" in r.getMessage()]
    assert len(alarms) == 2
    assert_verified(federation)


def assert_one_alarm(caplog, about):
    (alarm,) = [r.getMessage() for r in caplog.records if "ALARM" in r.getMessage()]
    assert about in alarm


# --- a sum that cannot be --------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2], ids=["last round", "earlier round"])
def test_a_sum_that_opens_to_the_impossible_ends_the_run_and_says_that_somebody_cheats(
    federate, rounds
):
    federation = federate(rounds=rounds)

    def negative(self, metrics, *, limit):
        return np.full(len(self.metrics), -limit)

    def cheat(deliver, message, index):
        if index != BAD:
            return deliver(message)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Layout, "quantise_metrics", negative)
            return deliver(message)

    federation.make_grid().messages.append(cheat)
    text = str(run_into_refusal(federation))
    assert "a contributor is dishonest" in text
    assert "twopm task cancel" in text
    for node in federation.nodes:
        assert_unharmed(node, opened=0)


def test_an_evaluation_signed_for_another_exchange_is_dropped_without_a_new_attempt(federate):
    federation = federate(rounds=1)
    bad = federation.nodes[BAD]

    def replay(order, reply):
        statement = reply.evaluation.statement.model_copy(update={"closing": False})
        domain = federation.stage.deployment.domain
        return replace(reply, evaluation=sign(statement, bad.home.signer, domain))

    on_evaluation(federation, CloseOrder, replay)
    result = federation.run()
    assert sorted(result.evaluate_metrics_clientapp) == [0]
    assert federation.bundle().rounds[0].manifest.attempt == 1
    assert_verified(federation)
