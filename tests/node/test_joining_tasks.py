"""Creating a task and bringing nodes into it: what each side refuses."""

from pathlib import Path

import pytest

from twopm_flower.errors import (
    ConfigError,
    DataError,
    ProtocolViolation,
    QuorumError,
)
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import (
    Invitation,
    admit,
    create_task,
    load_initial_model,
    load_key_deal,
    start_task,
)
from twopm_flower.node.local_data import DataSource, load_rows
from twopm_flower.node.membership import join_task
from twopm_flower.node.provision import (
    init_node,
)
from twopm_flower.node.terms import TaskSettings, build_student_terms, read_run_config
from twopm_flower.records.bundle import JoinRequest


def test_nodes_compute_on_the_rows_that_they_committed_to(federate):
    federation = federate(3)
    invitation = federation.ready()
    rows = [load_rows(NodeHome(home).task(invitation.task_id)) for home in federation.homes]
    roster = NodeHome(federation.homes[0]).task(invitation.task_id).roster
    assert [member.samples for member in roster.members] == [len(r.train_y) for r in rows]
    assert sum(len(r.train_y) + len(r.held_out_y) for r in rows) == 90
    assert "not the published file" in rows[0].label


def test_rows_that_changed_since_the_commitment_are_refused(federate, tmp_path):
    federation = federate(3)
    invitation = federation.create()
    own = tmp_path / "own.csv"
    own.write_bytes(federation.data.read_bytes())
    source = DataSource(own)
    join_task(federation.homes[0], invitation, source, reader=federation.chain.reader)
    folder = NodeHome(federation.homes[0]).task(invitation.task_id)
    load_rows(folder)
    lines = own.read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    own.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="committed"):
        load_rows(folder)


def test_joining_again_with_the_same_rows_gives_the_same_commitment(federate):
    federation = federate(3)
    invitation = federation.create()
    requests = [
        join_task(
            federation.homes[0],
            invitation,
            DataSource(federation.data, 0, 3),
            reader=federation.chain.reader,
        )
        for _ in range(2)
    ]
    assert requests[0].membership == requests[1].membership


def test_admitting_and_starting_twice_changes_nothing(federate):
    federation = federate(3)
    invitation = federation.create()
    roster = federation.start(invitation)
    again = start_task(federation.coordinator, federation.chain.connector, invitation.task_id)
    assert again == roster


def test_a_node_registers_again_when_its_sealing_key_changed(federate):
    federation = federate(3)
    federation.start(federation.create())
    (federation.homes[0] / "sealing.key").unlink()
    init_node(federation.homes[0], name="node-0", chain=federation.chain.settings)
    invitation = federation.create()
    federation.join(invitation, 0)
    node = NodeHome(federation.homes[0])
    registered = federation.chain.reader.registered_key(node.signer.address)
    assert registered == node.sealing_key.public


def test_a_task_does_not_start_with_too_few_members(federate):
    federation = federate(3)
    invitation = federation.create()
    federation.join(invitation, 0)
    with pytest.raises(QuorumError, match="1 members; it needs 3"):
        start_task(federation.coordinator, federation.chain.connector, invitation.task_id)


def test_no_more_nodes_are_admitted_than_the_sum_has_room_for(federate):
    federation = federate(4)
    invitation = federation.create(TaskSettings(max_nodes=3))
    for index in range(3):
        federation.join(invitation, index)
    with pytest.raises(QuorumError, match="room for 3"):
        federation.join(invitation, 3)


def test_an_invitation_with_other_terms_than_the_chain_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    terms = invitation.terms.model_copy(update={"clip": 8.0})
    forged = invitation.model_copy(update={"terms": terms})
    with pytest.raises(ProtocolViolation, match="terms digest"):
        join_task(
            federation.homes[0],
            forged,
            DataSource(federation.data),
            reader=federation.chain.reader,
        )
    assert NodeHome(federation.homes[0]).task_ids() == ()


def test_terms_whose_parameters_do_not_match_their_digest_are_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    terms = invitation.terms.model_copy(update={"layout_digest": "0x" + "00" * 32})
    with pytest.raises(ConfigError, match="layout_digest"):
        join_task(
            federation.homes[0],
            invitation.model_copy(update={"terms": terms}),
            DataSource(federation.data),
            reader=federation.chain.reader,
        )


def test_an_invitation_to_another_contract_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    elsewhere = invitation.deployment.model_copy(update={"chain_id": 7})
    with pytest.raises(ConfigError, match="this node pins"):
        join_task(
            federation.homes[0],
            invitation.model_copy(update={"deployment": elsewhere}),
            DataSource(federation.data),
            reader=federation.chain.reader,
        )


def test_a_node_with_more_rows_than_agreed_does_not_join(federate):
    federation = federate(3)
    invitation = federation.create(TaskSettings(max_samples=50))
    with pytest.raises(DataError, match="72 training rows; the task allows 50"):
        join_task(
            federation.homes[0],
            invitation,
            DataSource(federation.data),
            reader=federation.chain.reader,
        )


def test_a_request_that_registers_one_node_and_joins_another_is_refused(federate):
    federation = federate(3)
    invitation = federation.create()
    first, second = (
        join_task(home, invitation, DataSource(federation.data), reader=federation.chain.reader)
        for home in federation.homes[:2]
    )
    mixed = JoinRequest(registration=first.registration, membership=second.membership)
    with pytest.raises(ProtocolViolation, match="the request registers"):
        admit(federation.coordinator, federation.chain.connector, [mixed])
    assert federation.chain.reader.members(invitation.task_id) == ()


def test_the_coordinator_finds_its_initial_model_again(federate):
    federation = federate(3)
    invitation = federation.create()
    folder = NodeHome(federation.coordinator).task(invitation.task_id)
    arrays = load_initial_model(folder)
    assert list(arrays) == [array.name for array in invitation.terms.arrays]
    assert load_key_deal(folder) is None
    stored = folder.path / "initial-model.safetensors"
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match="the initial model has digest"):
        load_initial_model(folder)


def test_a_task_is_not_created_with_another_initial_model(federate):
    federation = federate(3)
    terms, initial = build_student_terms(
        read_run_config(Path(__file__).parents[2]), TaskSettings(), app_bundle="0x" + "00" * 32
    )
    initial["bias"] = initial["bias"] + 1
    with pytest.raises(ConfigError, match="the terms name"):
        create_task(federation.coordinator, federation.chain.connector, terms, initial)


def test_invitations_have_one_encoding(federate):
    invitation = federate(3).create()
    assert Invitation.from_bytes(invitation.to_bytes()) == invitation
