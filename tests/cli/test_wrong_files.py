"""A file that is not the one a command wants: the answer names it, and who writes the right one."""

import json

import pytest

from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import Invitation
from twopm_flower.node.handed_over import KINDS
from twopm_flower.records.bundle import DealtKey, JoinRequest, NodeCard, RunBundle
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.records.roster import Roster

WANTS = {
    ("verify",): ("bundle", "bundle export"),
    ("rounds",): ("bundle", "bundle export"),
    ("task", "join"): ("invitation", "task create"),
    ("task", "admit"): ("request", "task join"),
    ("task", "confirm", "--roster"): ("roster", "task start"),
    ("task", "key"): ("deal", "keys deal"),
    ("keys", "accept"): ("deal", "keys deal"),
    ("node", "trust"): ("card", "node init"),
}


@pytest.fixture
def invitation(finished, tmp_path):
    terms = NodeHome(finished.coordinator).task(finished.task_id).terms
    bundle = RunBundle.from_bytes(finished.bundle.read_bytes())
    invited = Invitation(deployment=bundle.deployment, task_id=finished.task_id, terms=terms)
    file = tmp_path / "invitation.json"
    file.write_bytes(invited.to_bytes())
    return file


@pytest.mark.parametrize("command", WANTS, ids=" ".join)
def test_a_wrong_file_is_named_with_who_writes_the_right_one(twopm, own_copy, tmp_path, command):
    wanted, writer = WANTS[command]
    for name, text, why in (
        ("x.json", "{}", ""),
        ("run.sh", "echo secret\n", ""),
        ("chain.json", '{"name":"x","registration":[]}', ": it looks like a card"),
    ):
        file = tmp_path / name
        file.write_text(text)
        outcome = twopm(*command, file, "--home", own_copy)
        assert outcome.status == 1
        first, second = outcome.err.strip().splitlines()
        if wanted != "card" or not why:
            assert first == f"Error: {file} is no {wanted}{why}"
        assert f"'twopm {writer}'" in second
        assert "secret" not in outcome.err


def test_an_invitation_is_recognised_where_another_file_is_wanted(twopm, own_copy, invitation):
    for command in (("verify",), ("node", "trust"), ("task", "confirm", "--roster")):
        outcome = twopm(*command, invitation, "--home", own_copy)
        assert outcome.status == 1
        assert "it looks like an invitation" in outcome.err
    outcome = twopm("task", "join", own_copy, "--home", own_copy)
    assert f"the invitation {own_copy} cannot be read: Is a directory" in outcome.err


def test_a_bundle_is_not_taken_for_the_invitation_whose_fields_it_has(twopm, finished, own_copy):
    outcome = twopm("task", "join", finished.bundle, "--home", own_copy)
    assert f"{finished.bundle} is no invitation: it looks like a bundle" in outcome.err


def test_a_changed_file_of_the_right_kind_says_what_is_wrong_with_it(
    twopm, own_copy, invitation, tmp_path
):
    value = json.loads(invitation.read_text())
    del value["terms"]["rounds"]
    invitation.write_text(json.dumps(value, separators=(",", ":"), sort_keys=True))
    outcome = twopm("task", "join", invitation, "--home", own_copy)
    assert f"the invitation {invitation} cannot be used" in outcome.err
    assert "terms.rounds: Field required" in outcome.err
    assert "{" not in outcome.err
    invitation.write_text(json.dumps(value, indent=2))
    outcome = twopm("task", "join", invitation, "--home", own_copy)
    assert "not in its canonical form" in outcome.err
    assert "It was changed" in outcome.err


def test_every_kind_is_told_by_fields_that_its_record_has():
    records = (RunBundle, Invitation, NodeCard, JoinRequest, Roster, DealtKey, ReceiptFile)
    for kind, record in zip(KINDS, records, strict=True):
        assert kind.fields <= record.model_fields.keys()
        fitting = [other for other in KINDS if other.fields <= record.model_fields.keys()]
        assert fitting[0] is kind
