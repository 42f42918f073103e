"""Nobody is listed for what another sent in its name."""

import shutil
from dataclasses import replace

import pytest

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import TrainOrder
from twopm_flower.signer.keystore import LocalSigner, create_key_file

CULPRIT = 4
MISDEEDS = {"malformed", "signature", "binding", "error"}


def culprit_sends(federation, change):
    """Let the culprit's update replies pass through `change` on their way out."""

    def tamper(deliver, message, index):
        reply = deliver(message)
        if index == CULPRIT and isinstance(wire.parse_order(message.content), TrainOrder):
            parsed = wire.parse_train_reply(reply.content)
            reply.content = wire.reply_content(change(parsed))
        return reply

    federation.make_grid().messages.append(tamper)


def naming(victim, reply):
    """Return an update reply that claims to be the victim's, under the sender's signature."""
    statement = reply.update.statement.model_copy(update={"node": victim})
    update = reply.update.model_copy(update={"node": victim, "statement": statement})
    frame = bytearray(reply.frame)
    frame[52:72] = bytes.fromhex(victim[2:])
    return replace(reply, frame=bytes(frame), update=update)


def bound_elsewhere(victim, reply):
    return replace(naming(victim, reply), frame=reply.frame)


def cut_short(victim, reply):
    named = naming(victim, reply)
    return replace(named, frame=named.frame[:-1])


@pytest.mark.parametrize("garbage", [naming, bound_elsewhere, cut_short])
def test_garbage_in_the_name_of_a_silent_member_is_not_held_against_it(federate, garbage):
    federation = federate(nodes=5, rounds=1)
    victim = federation.nodes[0]
    culprit_sends(federation, lambda reply: garbage(victim.address, reply))
    assert_not_blamed(federation, victim)


def test_a_public_statement_of_a_silent_member_shown_by_another_is_not_held_against_it(federate):
    earlier = federate(nodes=5, rounds=1)
    earlier.run()
    victim = earlier.nodes[0]
    public = next(u for u in earlier.bundle().rounds[0].updates if u.node == victim.address)

    federation = federate(nodes=5, rounds=1)
    culprit_sends(federation, lambda reply: replace(naming(victim.address, reply), update=public))
    assert_not_blamed(federation, federation.nodes[0])


def test_the_garbage_of_a_flower_node_that_is_no_member_is_not_held_against_a_silent_one(
    federate, tmp_path
):
    federation = federate(nodes=4, rounds=1)
    grid = federation.make_grid()
    outsider = tmp_path / "outsider"
    shutil.copytree(federation.nodes[0].home.path, outsider)
    (outsider / "identity.key").unlink()
    create_key_file(outsider / "identity.key")
    assert LocalSigner.from_file(outsider / "identity.key").address not in federation.roster.nodes
    config = {"partition-id": 4, "num-partitions": 5, "twopm-home": str(outsider)}
    grid.contexts[5] = replace(grid.contexts[1], node_id=5, node_config=config)
    assert_not_blamed(federation, federation.nodes[0])


def assert_not_blamed(federation, victim):
    """Run with the victim silent in training; it is listed as silent and nothing worse."""

    def silent(deliver, message, index):
        order = wire.parse_order(message.content)
        return None if index == victim.index and isinstance(order, TrainOrder) else deliver(message)

    federation.grid.messages.append(silent)
    federation.run()
    (entry,) = federation.bundle().rounds
    listed = {exclusion.node: exclusion for exclusion in entry.manifest.exclusions}
    assert listed[victim.address].reason not in MISDEEDS, listed[victim.address].detail
