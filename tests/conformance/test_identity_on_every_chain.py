import time

import pytest
from chain_stage import FAR_FUTURE, digest, new_node, refused

from twopm_flower.errors import ChainError
from twopm_flower.records.statements import Registration, sign


def register(stage, node, key, signature, deadline=FAR_FUTURE):
    return stage.connector.register_node(node.address, key, deadline, signature)


def test_a_registered_node_can_be_written_to_under_its_key(stage):
    node = new_node()
    assert stage.connector.registered_key(node.address) is None
    assert stage.connector.registration_nonce(node.address) == 0
    key = stage.register(node)
    assert stage.connector.registered_key(node.address) == key
    assert stage.connector.registration_nonce(node.address) == 1


def test_a_node_gets_another_key_and_keeps_its_place_on_the_list(stage):
    first, second = stage.registered_nodes(2)
    stage.register(first, digest(2))
    listed = {node.node: node.sealing_key for node in stage.connector.nodes()}
    assert listed[first.address] == digest(2) == stage.connector.registered_key(first.address)
    assert listed[second.address] == stage.keys[second.address]
    assert list(listed).index(first.address) < list(listed).index(second.address)


def test_a_node_that_leaves_is_off_the_list_and_may_come_back(stage):
    node, other = stage.registered_nodes(2)
    stage.depart(node)
    assert stage.connector.registered_key(node.address) is None
    assert stage.connector.registration_nonce(node.address) == 2
    listed = [known.node for known in stage.connector.nodes()]
    assert node.address not in listed
    assert other.address in listed
    stage.register(node, digest(3))
    listed = [known.node for known in stage.connector.nodes()]
    assert listed.index(node.address) < listed.index(other.address)


def test_old_statements_cannot_be_replayed(stage):
    node = new_node()
    joining = stage.registration(node, sealing_key=digest(1))
    register(stage, node, digest(1), joining)
    leaving = stage.departure(node, nonce=1)
    stage.connector.deregister_node(node.address, FAR_FUTURE, leaving)
    with refused("NotRegistered"):
        stage.connector.deregister_node(node.address, FAR_FUTURE, leaving)
    with refused("WrongSigner"):
        register(stage, node, digest(1), joining)
    stage.register(node, digest(2))
    with refused("WrongSigner"):
        stage.connector.deregister_node(node.address, FAR_FUTURE, leaving)
    with refused("WrongSigner"):
        register(stage, node, digest(1), joining)
    assert stage.connector.registered_key(node.address) == digest(2)


def test_nobody_registers_a_node_but_itself(stage):
    node, thief = new_node(), new_node()
    with refused("WrongSigner"):
        register(stage, node, digest(1), stage.registration(thief, sealing_key=digest(1)))
    assert stage.connector.registered_key(node.address) is None


def test_nobody_makes_a_node_leave_but_itself(stage, nodes):
    thief = new_node()
    for signature in (
        stage.departure(thief, nonce=1),
        stage.registration(nodes[0], sealing_key=digest(1), nonce=1),
        stage.departure(nodes[0], nonce=0),
    ):
        with refused("WrongSigner"):
            stage.connector.deregister_node(nodes[0].address, FAR_FUTURE, signature)
    with refused("NotRegistered"):
        signature = stage.departure(thief, nonce=0)
        stage.connector.deregister_node(thief.address, FAR_FUTURE, signature)
    assert stage.connector.registered_key(nodes[0].address) is not None


@pytest.mark.parametrize(
    ("key", "deadline"), [(digest(2), FAR_FUTURE), (digest(1), FAR_FUTURE + 1)]
)
def test_a_registration_holds_for_what_was_signed_only(stage, key, deadline):
    node = new_node()
    signature = stage.registration(node, sealing_key=digest(1))
    with refused("WrongSigner"):
        register(stage, node, key, signature, deadline)


def test_a_registration_for_another_contract_or_chain_is_refused(stage):
    node = new_node()
    statement = Registration(node=node.address, sealing_key=digest(1), nonce=0, deadline=FAR_FUTURE)
    elsewhere = stage.node_domain.model_copy(update={"chain_id": 5})
    for domain in (stage.task_domain, elsewhere):
        with refused("WrongSigner"):
            register(stage, node, digest(1), sign(statement, node, domain).signature)


def test_statements_after_their_deadline_are_refused(stage, nodes):
    node, deadline = new_node(), int(time.time()) - 60
    signature = stage.registration(node, sealing_key=digest(1), deadline=deadline)
    with refused("DeadlinePassed"):
        register(stage, node, digest(1), signature, deadline)
    leaving = stage.departure(nodes[0], nonce=1, deadline=deadline)
    with refused("DeadlinePassed"):
        stage.connector.deregister_node(nodes[0].address, deadline, leaving)


def test_a_zero_key_is_no_key(stage):
    node = new_node()
    with refused("ZeroSealingKey"):
        register(stage, node, digest(0), stage.registration(node, sealing_key=digest(0)))


def test_a_signature_in_its_other_form_is_refused(stage):
    node = new_node()
    raw = bytes.fromhex(stage.registration(node, sealing_key=digest(1))[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(raw[32:64])).to_bytes(32)
    for other in (
        raw[:32] + high + bytes([55 - raw[64]]),
        raw[:64] + bytes([raw[64] - 27]),
        bytes(64) + b"\x1b",
        raw[:64],
    ):
        with pytest.raises(ChainError):
            register(stage, node, digest(1), "0x" + other.hex())
    assert stage.connector.registered_key(node.address) is None


def test_a_stranger_may_relay_what_a_node_signed(stage, stranger):
    node = new_node()
    register(stranger, node, digest(1), stage.registration(node, sealing_key=digest(1)))
    assert stage.connector.registered_key(node.address) == digest(1)
