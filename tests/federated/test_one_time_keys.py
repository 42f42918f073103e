"""Runs whose nodes encrypt with keys of their own: exact, blind, and alive after drop-outs."""

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from twopm_flower.errors import ConfigError, QuorumError
from twopm_flower.federated import wire
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    PrepareOrder,
    TrainOrder,
)
from twopm_flower.node.handover import export_bundle
from twopm_flower.records.bundle import RunBundle
from twopm_flower.verify import verify_bundle

TEN = {"nodes": 10, "colluders": 3, "min_contributors": 5, "trust_mode": "one-time-key"}


def slow(case):
    """Leave a case to the long run."""
    return pytest.param(case, marks=pytest.mark.slow)


def kind_of(message):
    """Return the exchange of a message, such as ("train", 2)."""
    match wire.parse_order(message.content):
        case PrepareOrder():
            return ("prepare", 0)
        case TrainOrder() as order:
            return ("train", order.round)
        case EvaluateOrder(manifest=manifest):
            return ("evaluate", manifest.round)
        case CloseOrder():
            return ("close", 0)


def kill(federation, deaths):
    """Let nodes answer nothing from an exchange on: node index to (kind, round)."""
    dead = set()

    def cut(deliver, message, index):
        if deaths.get(index) == kind_of(message):
            dead.add(index)
        if index in dead:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
        return deliver(message)

    (federation.grid or federation.make_grid()).messages.append(cut)
    return dead


def survivors(federation):
    return [
        {n.index for n in federation.nodes if n.address in entry.manifest.nodes}
        for entry in federation.bundle().rounds
    ]


def assert_verified(federation):
    report = verify_bundle(federation.bundle(), chain=federation.stage.reader())
    assert report.exit_code == 0, report.first_failure


def assert_equal_models(federation, alive):
    last = federation.terms.rounds
    first, *others = [federation.nodes[index] for index in sorted(alive)]
    for node in others:
        for name, array in first.model(last).items():
            np.testing.assert_array_equal(node.model(last)[name], array)


def test_the_models_are_those_of_plaintext_training_bit_for_bit(federate):
    # With room for ten both modes carry values of the same size.
    hidden = federate(trust_mode="one-time-key", rounds=3, room=10)
    plain = federate(trust_mode="plaintext", rounds=3, room=10)
    assert hidden.terms.parameters["limit"] == plain.terms.parameters["limit"]
    hidden.run()
    plain.run()
    for ours, theirs in zip(hidden.nodes, plain.nodes, strict=True):
        for round_ in (2, 3):
            for name, array in theirs.model(round_).items():
                np.testing.assert_array_equal(ours.model(round_)[name], array)
    assert_verified(hidden)


def test_a_stranger_redoes_the_sums_from_the_exported_bundle(federate, tmp_path):
    federation = federate(trust_mode="one-time-key")
    federation.run()
    out = tmp_path / "bundle.json"
    export_bundle(federation.coordinator, federation.task_id, out)
    bundle = RunBundle.from_bytes(out.read_bytes())
    report = verify_bundle(bundle, chain=federation.stage.reader())
    assert report.exit_code == 0
    assert report.level == "re-executed"


def test_nothing_that_opens_a_share_is_left_when_a_round_is_over(federate):
    federation = federate(trust_mode="one-time-key")
    federation.run()
    for node in federation.nodes:
        left = {
            file.name
            for pattern in ("reader-*", "share-*", "opening-*")
            for file in node.folder.path.glob(pattern)
        }
        assert left == set()


@pytest.mark.parametrize(
    "deaths",
    [
        slow({1: ("prepare", 0), 4: ("prepare", 0), 9: ("prepare", 0)}),
        slow({0: ("train", 1), 5: ("train", 1), 8: ("train", 1)}),
        slow({2: ("evaluate", 1), 3: ("evaluate", 1), 7: ("evaluate", 1)}),
        {2: ("train", 1), 3: ("evaluate", 1), 7: ("train", 2)},
        slow({6: ("evaluate", 2), 1: ("evaluate", 2), 0: ("train", 2)}),
        slow({4: ("close", 0), 5: ("close", 0), 6: ("close", 0)}),
    ],
)
def test_any_three_of_ten_may_die_at_any_stage(federate, deaths):
    federation = federate(**TEN)
    kill(federation, deaths)
    federation.run()
    alive = set(range(10)) - set(deaths)
    assert all(alive <= names for names in survivors(federation))
    assert_equal_models(federation, alive)
    assert_verified(federation)


@pytest.mark.parametrize(
    "when",
    [
        slow(("prepare", 0)),
        slow(("train", 1)),
        ("evaluate", 1),
        slow(("train", 2)),
        slow(("evaluate", 2)),
    ],
)
def test_a_fourth_death_stops_the_run_with_a_clear_error(federate, when):
    federation = federate(**TEN)
    kill(federation, {1: ("train", 1), 3: ("evaluate", 1), 5: when, 8: when})
    with pytest.raises(QuorumError, match=r"7 (are needed|must)"):
        federation.run()


def test_the_ciphertext_of_a_survivor_that_vanished_takes_the_place_of_its_fingerprints(federate):
    federation = federate(trust_mode="one-time-key")
    kill(federation, {3: ("evaluate", 1)})
    federation.run()
    entry = federation.bundle().rounds[0]
    gone = federation.nodes[3].address
    assert gone in entry.manifest.nodes
    assert gone not in {signed.node for signed in entry.fingerprints}
    digest = next(s.update_digest for s in entry.manifest.survivors if s.node == gone)
    assert digest in federation.bundle().ciphertexts
    assert_verified(federation)
    without = federation.bundle().model_copy(update={"ciphertexts": {}})
    assert verify_bundle(without, chain=federation.stage.reader()).exit_code == 1


def test_too_few_nodes_for_the_colluders_are_refused_at_once(federate):
    with pytest.raises(ConfigError, match="min-contributors must be at least 5"):
        federate(nodes=4, trust_mode="one-time-key", colluders=3)
