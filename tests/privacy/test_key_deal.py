"""The key reaches exactly the nodes of one roster, and all of them the same."""

from dataclasses import replace

import pytest

from twopm_flower.errors import KeyCeremonyError
from twopm_flower.privacy.key_deal import DealContext, KeyBox, Reader, accept, deal
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey

CONTEXT = DealContext(
    chain_id=31337,
    contract="0x" + "aA" * 20,
    task_id="0x" + "01" * 32,
    roster_digest="0x" + "02" * 32,
    dealer="0x" + "03" * 20,
)
NODES = ["0x" + f"{i:02x}" * 20 for i in (0x0A, 0x0B, 0x0C)]


def a_ceremony():
    keys = [SealingKey.create() for _ in NODES]
    shared = SharedKey("bfv", SecretBytes(b"secret of all nodes"))
    readers = [Reader(node, key.public) for node, key in zip(NODES, keys, strict=True)]
    return shared, keys, deal(shared, readers, CONTEXT)


def accepted(box, key, node, key_id, context=CONTEXT):
    return accept(box, own_key=key, own_node=node, context=context, key_id=key_id)


def test_every_reader_gets_the_same_key():
    shared, keys, boxes = a_ceremony()
    assert [box.node for box in boxes] == NODES
    for box, key, node in zip(boxes, keys, NODES, strict=True):
        found = accepted(box, key, node.upper().replace("0X", "0x"), shared.key_id)
        assert (found.key_id, found.secret.reveal()) == (shared.key_id, shared.secret.reveal())
        assert shared.secret.reveal().hex() not in box.box


def test_a_box_opens_for_nobody_else():
    shared, keys, boxes = a_ceremony()
    with pytest.raises(KeyCeremonyError, match="is for node"):
        accepted(boxes[0], keys[0], NODES[1], shared.key_id)
    with pytest.raises(KeyCeremonyError, match="does not open"):
        accepted(boxes[0], keys[1], NODES[0], shared.key_id)
    relabelled = KeyBox(NODES[1], boxes[0].box)
    with pytest.raises(KeyCeremonyError, match="does not open"):
        accepted(relabelled, keys[0], NODES[1], shared.key_id)


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"contract": "0x" + "bb" * 20},
        {"task_id": "0x" + "09" * 32},
        {"roster_digest": "0x" + "09" * 32},
        {"dealer": "0x" + "09" * 20},
    ],
)
def test_a_box_opens_in_no_other_ceremony(change):
    shared, keys, boxes = a_ceremony()
    with pytest.raises(KeyCeremonyError, match="does not open"):
        accepted(boxes[0], keys[0], NODES[0], shared.key_id, replace(CONTEXT, **change))


def test_the_spelling_of_an_address_changes_nothing():
    shared, keys, boxes = a_ceremony()
    lower = replace(CONTEXT, contract=CONTEXT.contract.lower())
    assert accepted(boxes[0], keys[0], NODES[0], shared.key_id, lower).key_id == shared.key_id


def test_a_dealer_who_hands_out_different_keys_is_caught():
    shared, keys, _ = a_ceremony()
    other = SharedKey("bfv", SecretBytes(b"another secret"))
    (box,) = deal(other, [Reader(NODES[0], keys[0].public)], CONTEXT)
    with pytest.raises(KeyCeremonyError, match="different keys to different nodes"):
        accepted(box, keys[0], NODES[0], shared.key_id)


def test_a_reader_or_key_that_is_listed_twice_is_refused():
    shared, keys, _ = a_ceremony()
    with pytest.raises(KeyCeremonyError, match=f"node {NODES[0]} is listed twice"):
        deal(shared, [Reader(NODES[0], k.public) for k in keys], CONTEXT)
    with pytest.raises(KeyCeremonyError, match=r"public key .* is listed twice"):
        deal(shared, [Reader(node, keys[0].public) for node in NODES], CONTEXT)


def test_a_box_that_is_not_hexadecimal_is_refused():
    shared, keys, _ = a_ceremony()
    with pytest.raises(KeyCeremonyError, match="not hexadecimal"):
        accepted(KeyBox(NODES[0], "0xzz"), keys[0], NODES[0], shared.key_id)


def test_the_digest_that_a_dealer_signs_is_of_reader_and_box():
    _, _, boxes = a_ceremony()
    made = {box.digest for box in boxes} | {KeyBox(NODES[1], boxes[0].box).digest}
    assert len(made) == 4
    assert KeyBox(NODES[0].upper().replace("0X", "0x"), boxes[0].box).digest == boxes[0].digest
