"""A frozen roster and the key that its members share: what a node confirms and accepts."""

import pytest

from twopm_flower.errors import (
    KeyCeremonyError,
    ProtocolViolation,
    RecordError,
)
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import (
    keep_key_deal,
)
from twopm_flower.node.membership import accept_key, confirm_task, deal_key
from twopm_flower.node.provision import (
    untrust,
)
from twopm_flower.node.terms import TaskSettings


@pytest.mark.parametrize(("quorum", "warned"), [(1, True), (2, False), (None, False)])
def test_a_node_that_confirms_a_roster_is_warned_of_a_quorum_below_a_majority(
    federate, caplog, quorum, warned
):
    federation = federate(3)
    invitation = federation.create(TaskSettings(quorum=quorum))
    roster = federation.start(invitation)
    confirm_task(federation.homes[0], invitation.task_id, roster, reader=federation.chain.reader)
    assert ("1 of 3 members are no majority" in caplog.text) is warned


def test_a_roster_with_a_node_that_is_not_trusted_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    roster = federation.start(invitation)
    untrust(federation.homes[0], "node-2")
    with pytest.raises(ProtocolViolation, match="not trusted here"):
        confirm_task(
            federation.homes[0], invitation.task_id, roster, reader=federation.chain.reader
        )
    assert not (
        NodeHome(federation.homes[0]).task(invitation.task_id).path / "roster.json"
    ).exists()


def test_a_roster_in_another_order_than_on_chain_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    roster = federation.start(invitation)
    turned = roster.model_copy(update={"members": roster.members[::-1]})
    with pytest.raises(ProtocolViolation, match="the chain froze"):
        confirm_task(
            federation.homes[0], invitation.task_id, turned, reader=federation.chain.reader
        )


def test_a_roster_is_not_confirmed_before_the_task_starts(federate):
    federation = federate(3)
    roster = federation.start(federation.create())
    invitation = federation.create()
    for index in range(3):
        federation.join(invitation, index)
    with pytest.raises(ProtocolViolation, match="not frozen"):
        confirm_task(
            federation.homes[0], invitation.task_id, roster, reader=federation.chain.reader
        )


def test_a_roster_with_an_older_commitment_of_this_node_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    roster = federation.start(invitation)
    home = federation.homes[1]
    choice = NodeHome(home).task(invitation.task_id).path / "data.json"
    choice.write_bytes(
        (NodeHome(federation.homes[0]).task(invitation.task_id).path / "data.json").read_bytes()
    )
    with pytest.raises(ProtocolViolation, match="it last chose"):
        confirm_task(home, invitation.task_id, roster, reader=federation.chain.reader)


def test_only_the_first_member_deals(federate):
    federation = federate(3)
    invitation = federation.ready()
    (NodeHome(federation.homes[1]).task(invitation.task_id).path / "shared.key").unlink()
    with pytest.raises(KeyCeremonyError, match="first member"):
        deal_key(federation.homes[1], invitation.task_id)


def test_dealing_again_hands_out_the_same_deal(federate):
    federation = federate(3)
    invitation = federation.ready()
    home = federation.homes[0]
    assert deal_key(home, invitation.task_id) == deal_key(home, invitation.task_id)


def test_a_second_key_is_never_accepted_over_the_first(federate):
    federation = federate(3)
    invitation = federation.ready()
    dealer = NodeHome(federation.homes[0]).task(invitation.task_id).path
    first = deal_key(federation.homes[0], invitation.task_id)
    keep_key_deal(federation.coordinator, invitation.task_id, first)
    (dealer / "shared.key").unlink()
    (dealer / "deal.json").unlink()
    second = deal_key(federation.homes[0], invitation.task_id)
    with pytest.raises(KeyCeremonyError, match="another key"):
        accept_key(federation.homes[1], second)
    with pytest.raises(RecordError, match="already"):
        keep_key_deal(federation.coordinator, invitation.task_id, second)
    accept_key(federation.homes[1], first)


def test_an_interrupted_deal_says_how_to_go_on(federate):
    federation = federate(3)
    invitation = federation.ready()
    (NodeHome(federation.homes[0]).task(invitation.task_id).path / "deal.json").unlink()
    with pytest.raises(KeyCeremonyError, match="deal again"):
        deal_key(federation.homes[0], invitation.task_id)


def test_a_plaintext_task_has_no_key(federate):
    federation = federate(3)
    invitation = federation.prepare(trust_mode="plaintext")
    with pytest.raises(KeyCeremonyError, match="no key"):
        deal_key(federation.homes[0], invitation.task_id)
