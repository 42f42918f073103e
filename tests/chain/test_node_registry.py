import time

import pytest
from chain_stage import FAR_FUTURE, digest, new_node

from twopm_flower.errors import TransactionReverted
from twopm_flower.records.statements import Registration, sign


def register(stage, node, key, signature, deadline=FAR_FUTURE):
    return stage.connector.register_node(node.address, key, deadline, signature)


def test_a_registered_node_can_be_written_to_under_its_key(stage):
    node = new_node()
    assert stage.connector.registered_key(node.address) is None
    key = stage.register(node)
    assert stage.connector.registered_key(node.address) == key
    assert stage.connector.registration_nonce(node.address) == 1


def test_registering_again_replaces_the_key(stage):
    node = new_node()
    stage.register(node, digest(1))
    stage.register(node, digest(2))
    assert stage.connector.registered_key(node.address) == digest(2)


def test_an_old_registration_cannot_be_replayed_over_a_newer_one(stage):
    node = new_node()
    old = stage.registration(node, sealing_key=digest(1))
    register(stage, node, digest(1), old)
    stage.register(node, digest(2))
    with pytest.raises(TransactionReverted) as refusal:
        register(stage, node, digest(1), old)
    assert refusal.value.error_name == "WrongSigner"
    assert stage.connector.registered_key(node.address) == digest(2)


def test_nobody_registers_a_node_but_itself(stage):
    node, thief = new_node(), new_node()
    signature = stage.registration(thief, sealing_key=digest(1))
    with pytest.raises(TransactionReverted) as refusal:
        register(stage, node, digest(1), signature)
    assert refusal.value.error_name == "WrongSigner"
    assert refusal.value.arguments["node"] == node.address


@pytest.mark.parametrize(
    ("key", "deadline"), [(digest(2), FAR_FUTURE), (digest(1), FAR_FUTURE + 1)]
)
def test_a_registration_holds_for_what_was_signed_only(stage, key, deadline):
    node = new_node()
    signature = stage.registration(node, sealing_key=digest(1))
    with pytest.raises(TransactionReverted) as refusal:
        register(stage, node, key, signature, deadline)
    assert refusal.value.error_name == "WrongSigner"


def test_a_registration_for_another_contract_is_refused(stage):
    node = new_node()
    statement = Registration(node=node.address, sealing_key=digest(1), nonce=0, deadline=FAR_FUTURE)
    signature = sign(statement, node, stage.task_domain).signature
    with pytest.raises(TransactionReverted, match="WrongSigner"):
        register(stage, node, digest(1), signature)


def test_a_registration_after_its_deadline_is_refused(stage):
    node = new_node()
    deadline = int(time.time()) - 60
    signature = stage.registration(node, sealing_key=digest(1), deadline=deadline)
    with pytest.raises(TransactionReverted) as refusal:
        register(stage, node, digest(1), signature, deadline)
    assert refusal.value.error_name == "DeadlinePassed"
    assert refusal.value.arguments["deadline"] == deadline


def test_a_zero_key_is_no_key(stage):
    node = new_node()
    signature = stage.registration(node, sealing_key=digest(0))
    with pytest.raises(TransactionReverted, match="ZeroSealingKey"):
        register(stage, node, digest(0), signature)


def test_a_signature_in_its_other_form_is_refused(stage):
    node = new_node()
    raw = bytes.fromhex(stage.registration(node, sealing_key=digest(1))[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(raw[32:64])).to_bytes(32)
    malleated = raw[:32] + high + bytes([55 - raw[64]])
    with pytest.raises(TransactionReverted, match="ECDSAInvalidSignatureS"):
        register(stage, node, digest(1), "0x" + malleated.hex())


def test_a_node_that_leaves_has_no_key_and_cannot_be_made_to_leave_twice(stage):
    node = new_node()
    stage.register(node)
    signature = stage.departure(node, nonce=1)
    stage.connector.deregister_node(node.address, FAR_FUTURE, signature)
    assert stage.connector.registered_key(node.address) is None
    assert stage.connector.registration_nonce(node.address) == 2
    stage.register(node)
    with pytest.raises(TransactionReverted, match="WrongSigner"):
        stage.connector.deregister_node(node.address, FAR_FUTURE, signature)
    assert stage.connector.registered_key(node.address) is not None


def test_only_the_node_itself_makes_itself_leave(stage):
    node, thief = new_node(), new_node()
    stage.register(node)
    by_thief, of_thief = stage.departure(thief, nonce=1), stage.departure(thief, nonce=0)
    with pytest.raises(TransactionReverted, match="WrongSigner"):
        stage.connector.deregister_node(node.address, FAR_FUTURE, by_thief)
    with pytest.raises(TransactionReverted, match="NotRegistered"):
        stage.connector.deregister_node(thief.address, FAR_FUTURE, of_thief)
    assert stage.connector.registered_key(node.address) is not None


def test_a_departure_after_its_deadline_is_refused(stage):
    node = new_node()
    stage.register(node)
    deadline = int(time.time()) - 60
    signature = stage.departure(node, nonce=1, deadline=deadline)
    with pytest.raises(TransactionReverted) as refusal:
        stage.connector.deregister_node(node.address, deadline, signature)
    assert refusal.value.error_name == "DeadlinePassed"
