"""From empty folders to nodes that hold one key, on a real chain."""

import os
import stat
from pathlib import Path

import pytest

from twopm_flower.errors import (
    ConfigError,
    DataError,
    KeyCeremonyError,
    ProtocolViolation,
    QuorumError,
    RecordError,
    SignatureError,
)
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import (
    Invitation,
    admit,
    create_task,
    keep_key_deal,
    load_initial_model,
    load_key_deal,
    start_task,
)
from twopm_flower.node.local_data import DataSource, load_rows
from twopm_flower.node.membership import accept_key, confirm_task, deal_key, join_task
from twopm_flower.node.provision import (
    card_fingerprint,
    configure_home,
    init_node,
    read_card,
    trust,
    untrust,
)
from twopm_flower.node.terms import TaskSettings, build_student_terms, read_run_config
from twopm_flower.records.bundle import JoinRequest, NodeCard


def test_three_operators_and_a_coordinator_end_up_with_one_key_and_one_roster(federate):
    federation = federate(3)
    invitation = federation.create()
    roster = federation.start(invitation)
    for home in federation.homes:
        confirm_task(home, invitation.task_id, roster, reader=federation.chain.reader)
    dealt = deal_key(federation.homes[0], invitation.task_id)
    kept = keep_key_deal(federation.coordinator, invitation.task_id, dealt)
    for home in federation.homes[1:]:
        accept_key(home, dealt)

    folders = [NodeHome(home).task(invitation.task_id) for home in federation.homes]
    assert {folder.shared_key.key_id for folder in folders} == {kept.statement.key_id}
    assert {folder.roster.digest for folder in folders} == {
        federation.chain.reader.task(invitation.task_id).roster_digest
    }
    assert federation.chain.reader.task(invitation.task_id).state == "running"


def test_the_coordinator_ends_up_without_any_secret_of_a_node(federate):
    federation = federate(3)
    invitation = federation.ready()
    dealt = deal_key(federation.homes[0], invitation.task_id)
    keep_key_deal(federation.coordinator, invitation.task_id, dealt)
    secret = NodeHome(federation.homes[0]).task(invitation.task_id).shared_key.secret.reveal()
    for file in federation.coordinator.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert secret not in data
            assert secret.hex().encode() not in data


def test_every_secret_is_readable_by_its_owner_alone(federate):
    federation = federate(3)
    invitation = federation.ready()
    home = federation.homes[0]
    folder = NodeHome(home).task(invitation.task_id).path
    secrets = ["identity.key", "sealing.key"]
    for file in [*(home / n for n in secrets), folder / "shared.key", folder / "data.salt"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_setting_up_a_node_again_keeps_its_keys(tmp_path, chain):
    first = init_node(tmp_path, name="alice", chain=chain.settings)
    again = init_node(tmp_path, name="alice", chain=chain.settings)
    assert again.registration.statement == first.registration.statement


def test_a_node_keeps_its_name_and_its_chain(tmp_path, chain):
    init_node(tmp_path, name="alice", chain=chain.settings)
    other = chain.settings.model_copy(update={"chain_id": chain.settings.chain_id + 1})
    with pytest.raises(ConfigError, match="pins another chain"):
        init_node(tmp_path, name="alice", chain=other)
    with pytest.raises(ConfigError, match="Edit it"):
        init_node(tmp_path, name="bob", chain=chain.settings)


def test_a_name_with_quotes_survives_the_settings_file(tmp_path, chain):
    card = init_node(tmp_path, name='St. "Mary" \\ Köln', chain=chain.settings)
    assert card.name == 'St. "Mary" \\ Köln'


def test_settings_that_the_operator_wrote_stay_as_they_are(tmp_path, chain):
    (tmp_path / "config.toml").write_text("# mine\n[node]\nname = 'alice'\nanchor = 'strict'\n")
    init_node(tmp_path, name="alice", chain=chain.settings)
    text = (tmp_path / "config.toml").read_text()
    assert "# mine" in text
    assert NodeHome(tmp_path).settings.node.anchor == "strict"
    assert NodeHome(tmp_path).settings.chain == chain.settings


def test_a_coordinators_home_names_its_account(tmp_path, chain):
    configure_home(tmp_path, chain.settings, coordinator_key=chain.key)
    assert NodeHome(tmp_path).settings.coordinator.key == chain.key


def test_a_card_with_another_key_inside_is_not_trusted(tmp_path, chain):
    card = init_node(tmp_path / "a", name="alice", chain=chain.settings)
    init_node(tmp_path / "b", name="bob", chain=chain.settings)
    value = card.to_json()
    value["registration"]["statement"]["sealing_key"] = "0x" + "11" * 32
    with pytest.raises(SignatureError):
        trust(tmp_path / "b", NodeCard.from_json(value))
    assert NodeHome(tmp_path / "b").peers() == {}


def test_a_card_for_another_chain_is_not_trusted(tmp_path, chain):
    other = chain.settings.model_copy(update={"chain_id": chain.settings.chain_id + 1})
    card = init_node(tmp_path / "a", name="alice", chain=other)
    init_node(tmp_path / "b", name="bob", chain=chain.settings)
    with pytest.raises(SignatureError):
        trust(tmp_path / "b", card)


def test_a_trusted_node_does_not_change_its_sealing_key_silently(tmp_path, chain):
    card = init_node(tmp_path / "a", name="alice", chain=chain.settings)
    init_node(tmp_path / "b", name="bob", chain=chain.settings)
    trust(tmp_path / "b", card)
    (tmp_path / "a" / "sealing.key").unlink()
    renewed = init_node(tmp_path / "a", name="alice", chain=chain.settings)
    with pytest.raises(ConfigError, match="is trusted with the sealing key"):
        trust(tmp_path / "b", renewed)
    trust(tmp_path / "b", renewed, replace=True)
    pinned = NodeHome(tmp_path / "b").peers()[card.registration.node]
    assert pinned == renewed


def test_a_node_is_forgotten_by_name_or_address(tmp_path, chain):
    card = init_node(tmp_path / "a", name="alice", chain=chain.settings)
    init_node(tmp_path / "b", name="bob", chain=chain.settings)
    for called in ("alice", card.registration.node.lower()):
        trust(tmp_path / "b", card)
        untrust(tmp_path / "b", called)
        assert NodeHome(tmp_path / "b").peers() == {}
    with pytest.raises(ConfigError, match="0 trusted nodes"):
        untrust(tmp_path / "b", "alice")


def test_the_fingerprint_covers_address_and_sealing_key(tmp_path, chain):
    statement = init_node(tmp_path, name="a", chain=chain.settings).registration.statement
    fingerprint = card_fingerprint(statement)
    other_key = statement.model_copy(update={"sealing_key": "0x" + "22" * 32})
    other_node = statement.model_copy(update={"node": "0x" + "33" * 20})
    assert len({fingerprint, card_fingerprint(other_key), card_fingerprint(other_node)}) == 3
    assert len(fingerprint.replace(" ", "")) == 32


def test_a_missing_card_is_an_error_that_says_who_writes_it(tmp_path):
    with pytest.raises(RecordError, match="node init"):
        read_card(tmp_path / "nobody.card.json")


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
        admit(federation.coordinator, federation.chain.connector, mixed)
    assert federation.chain.reader.members(invitation.task_id) == ()


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
    with pytest.raises(ConfigError, match="not the initial model"):
        load_initial_model(folder)


def test_a_task_is_not_created_with_another_initial_model(federate):
    federation = federate(3)
    terms, initial = build_student_terms(
        read_run_config(Path(__file__).parents[2]), TaskSettings(), app_bundle="0x" + "00" * 32
    )
    initial["bias"] = initial["bias"] + 1
    with pytest.raises(ConfigError, match="the terms name"):
        create_task(federation.coordinator, federation.chain.connector, terms, initial)


def test_a_home_inside_a_flower_app_is_refused(tmp_path, chain):
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\npublisher = 'x'\n")
    with pytest.raises(ConfigError, match="inside the Flower app"):
        init_node(tmp_path / "keys" / "alice", name="alice", chain=chain.settings)
    assert not (tmp_path / "keys").exists()


def test_invitations_have_one_encoding(federate):
    invitation = federate(3).create()
    assert Invitation.from_bytes(invitation.to_bytes()) == invitation


def test_a_node_that_was_never_set_up_says_how(tmp_path: Path, federate):
    invitation = federate(3).create()
    with pytest.raises(ConfigError, match="twopm node init"):
        join_task(tmp_path / "nobody", invitation, DataSource(), reader=federate)


@pytest.mark.skipif(os.name != "posix", reason="file modes are a POSIX matter")
def test_a_home_that_others_could_read_is_closed(tmp_path, chain):
    home = tmp_path / "open"
    home.mkdir(mode=0o755)
    init_node(home, name="alice", chain=chain.settings)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
