"""From empty folders to nodes that trust each other and hold one key, on a real chain."""

import os
import stat
from pathlib import Path

import pytest

from twopm_flower.errors import (
    ConfigError,
    RecordError,
    SignatureError,
)
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import (
    keep_key_deal,
)
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.membership import accept_key, confirm_task, deal_key, join_task
from twopm_flower.node.provision import (
    card_fingerprint,
    configure_home,
    init_node,
    read_card,
    trust,
    untrust,
)
from twopm_flower.records.bundle import NodeCard


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


def test_a_home_inside_a_flower_app_is_refused(tmp_path, chain):
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\npublisher = 'x'\n")
    with pytest.raises(ConfigError, match="inside the Flower app"):
        init_node(tmp_path / "keys" / "alice", name="alice", chain=chain.settings)
    assert not (tmp_path / "keys").exists()


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
