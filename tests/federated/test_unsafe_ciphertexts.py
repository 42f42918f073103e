"""TenSEAL's unsafe loads, sent over whole messages: who sends one is refused, the others go on.

What TenSEAL does with each is in ``tests/privacy/test_unsafe_loads.py``.
"""

import struct
from dataclasses import replace

import pytest
from federation import tell

from twopm_flower.errors import QuorumError
from twopm_flower.federated import opening as opening_module
from twopm_flower.federated import wire
from twopm_flower.federated.aggregator import (
    NodePins,
    RefusedReplyError,
    RoundAggregator,
    Setting,
)
from twopm_flower.federated.exchange import TrainOrder
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.frame import AGGREGATE_HEADER_BYTES, UPDATE_HEADER_BYTES
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.tenseal_bfv import BfvBackend

pytestmark = pytest.mark.slow

BAD = 3
SEEDS = 64
VECTOR_WITHOUT_CIPHERTEXT = bytes.fromhex("0a02a900") + struct.pack("<Bd", 0x19, 2.0**40)
MILLION = struct.pack("<I", 1_000_000)
NAN = struct.pack("<d", float("nan"))
Q_MINUS_1 = (MODULUS - 1).to_bytes(7, "little")
RESIDUE = UPDATE_HEADER_BYTES + SEEDS


def patched(data, offset, piece):
    return data[:offset] + piece + data[offset + len(piece) :]


def flipped(data, position, bit=0):
    return patched(data, position, bytes([data[position] ^ 1 << bit]))


UPDATES = {
    "a vector without a ciphertext": (lambda f: VECTOR_WITHOUT_CIPHERTEXT, "has 13"),
    "sizes without a ciphertext": (lambda f: f[:UPDATE_HEADER_BYTES], "carries 0"),
    "a million coefficients": (lambda f: patched(f, 172, MILLION), "announces 1000000"),
    "a million rows": (lambda f: patched(f, 168, MILLION), "in 1000000 rows"),
    "another key": (lambda f: patched(f, 72, b"\x44" * 32), "under key 0x4444"),
    "a scale": (lambda f: f + NAN, "carries"),
    "a residue of q": (lambda f: patched(f, RESIDUE, MODULUS.to_bytes(7, "little")), "not below"),
    "a residue of 2^56": (lambda f: patched(f, RESIDUE, b"\xff" * 7), "not below the modulus"),
    "a residue of q - 1": (lambda f: patched(f, RESIDUE, Q_MINUS_1), "the node signed"),
    "a seed of zeros": (lambda f: patched(f, UPDATE_HEADER_BYTES, bytes(64)), "the node signed"),
    "a bit of the magic": (lambda f: flipped(f, 0), "starts with"),
    "a bit of the node": (lambda f: flipped(f, 60), "bound to node"),
    "a bit of the length": (lambda f: flipped(f, 176), "announces"),
    "a bit of the seed": (lambda f: flipped(f, UPDATE_HEADER_BYTES + 9, 7), "the node signed"),
    "a bit of a residue": (lambda f: flipped(f, RESIDUE), "the node signed"),
    "no bytes": (lambda f: b"", "has 0"),
}  # fmt: skip
AGGREGATES = {
    "a vector without a ciphertext": (lambda f: VECTOR_WITHOUT_CIPHERTEXT, "has 13"),
    "sizes without a ciphertext": (lambda f: f[:AGGREGATE_HEADER_BYTES], "carries 0"),
    "a million coefficients": (lambda f: patched(f, 152, MILLION), "announces 1000000"),
    "a million rows": (lambda f: patched(f, 148, MILLION), "in 1000000 rows"),
    "another key": (lambda f: patched(f, 52, b"\x44" * 32), "under key 0x4444"),
    "a transparent ciphertext": (lambda f: f[:-14336] + bytes(14336), "is transparent"),
    "a scale": (lambda f: f + NAN, "carries"),
    "a residue of q": (lambda f: f[:-7] + MODULUS.to_bytes(7, "little"), "not below the modulus"),
    "a residue of q - 1": (lambda f: f[:-7] + Q_MINUS_1, "digest"),
    "a bit of the round": (lambda f: flipped(f, 40, 3), "bound to round"),
    "a bit of a residue": (lambda f: flipped(f, AGGREGATE_HEADER_BYTES), "digest"),
    "no bytes": (lambda f: b"", "has 0"),
}


class Untouched:
    """A backend that must not be called."""

    def expand(self, ciphertext):
        raise AssertionError("native code was reached")


def aggregator_of(recorded):
    federation = recorded.federation
    honest = federation.bundle().rounds[0].manifest
    task = TaskContext(
        task_id=federation.task_id,
        domain=federation.stage.deployment.domain,
        terms=federation.terms,
        roster=federation.roster,
        key_id=honest.key_id,
    )
    setting = Setting(
        round=1,
        attempt=1,
        previous_manifest=honest.previous_manifest,
        base_model=honest.base_model,
        config_digest=honest.config_digest,
    )
    return task, RoundAggregator(
        task, setting, NodePins(), asked=range(4), barred={}, expand=task.backend.expand
    )


@pytest.mark.parametrize("what", UPDATES)
def test_a_node_that_sends_it_is_left_out_and_the_others_are_added(recorded, what):
    change, said = UPDATES[what]
    task, aggregator = aggregator_of(recorded)
    sent = recorded.updates[BAD]
    for index in range(BAD):
        aggregator.receive(index, recorded.updates[index])
    if said != "the node signed":
        task.__dict__["backend"] = Untouched()
    with pytest.raises(RefusedReplyError, match=said) as caught:
        aggregator.receive(BAD, replace(sent, frame=change(sent.frame)))
    aggregator.refuse(BAD, caught.value)
    manifest = aggregator.finish().manifest
    assert len(manifest.survivors) == 3
    (listed,) = manifest.exclusions
    assert listed.node == recorded.federation.nodes[BAD].address
    assert listed.reason in ("malformed", "binding")


@pytest.mark.parametrize("what", AGGREGATES)
def test_a_node_that_is_sent_it_opens_nothing(recorded, tmp_path, monkeypatch, what):
    def opened(*args, **kwargs):
        raise AssertionError("the aggregate was opened")

    monkeypatch.setattr(opening_module, "open_aggregate", opened)
    change, said = AGGREGATES[what]
    moment = recorded.at("train", 2)
    (honest,) = moment.order.openings
    shown = tell(moment.order, openings=(replace(honest, aggregate=change(honest.aggregate)),))
    reply, node = moment.show(shown, tmp_path)
    assert reply.has_error()
    assert said in reply.error.reason + str(node.progress.halted)
    assert node.progress.opened_round == 0
    assert node.model_rounds() <= {0}


def test_the_server_goes_on_round_after_round(federate):
    federation = federate(rounds=3)
    rows = ["sizes without a ciphertext", "a bit of the seed", "no bytes"]

    def tamper(deliver, message, index):
        order = wire.parse_order(message.content)
        reply = deliver(message)
        if index == BAD and isinstance(order, TrainOrder):
            sent = wire.parse_train_reply(reply.content)
            change, _ = UPDATES[rows[order.round - 1]]
            reply.content = wire.reply_content(replace(sent, frame=change(sent.frame)))
        return reply

    federation.make_grid().messages.append(tamper)
    federation.run()
    bad = federation.nodes[BAD].address
    for entry, row in zip(federation.bundle().rounds, rows, strict=True):
        (listed,) = entry.manifest.exclusions
        assert listed.node == bad
        assert UPDATES[row][1] in listed.detail
    assert [node.progress.opened_round for node in federation.nodes[:BAD]] == [3, 3, 3]


def test_who_encrypts_under_another_key_spoils_the_sum_and_nothing_opens(federate, monkeypatch):
    # Nobody without the key can tell: the id in the frame is the right one, and signed. The
    # sum is then none that honest nodes add up to, and no model comes of it.
    federation = federate(rounds=1)
    honest = BfvBackend.encrypt

    def under_another_key(backend, coefficients, _key):
        return honest(backend, coefficients, backend.generate_key())

    def spoil(deliver, message, index):
        with monkeypatch.context() as patch:
            if index == BAD and isinstance(wire.parse_order(message.content), TrainOrder):
                patch.setattr(BfvBackend, "encrypt", under_another_key)
            return deliver(message)

    federation.make_grid().messages.append(spoil)
    with pytest.raises(QuorumError, match="a contributor is dishonest"):
        federation.run()
    assert len(federation.bundle().rounds[0].manifest.survivors) == 4
    for node in federation.nodes:
        assert node.model_rounds() <= {0}
