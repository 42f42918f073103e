"""Forgetting a task: what is deleted, what stays, and that the node is out of it."""

import os
import shutil
import threading
import time

import pytest

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.federated.home import NodeHome
from twopm_flower.federated.share_files import ShareFiles
from twopm_flower.node.doctor import examine
from twopm_flower.node.forgetting import forget_task, is_forgotten, leftover_keys

OPENS_SHARES = ["reader-1-1.key", "reader-1-2.key", "share-1-1.bin"]
SECRET = [
    "shared.key",
    "deal.json",
    "opening-1-1.bin",
    "update-1-1.frame",
    "update-1-1.json",
    *OPENS_SHARES,
]
DRAFTS = [".reader-2-1.key.f3a1c2d4e5f60718", ".share-2-1.bin.4711", ".shared.key.ab12"]
KEPT = ["terms.json", "roster.json", "data.json", "model-0.safetensors", "guard.sqlite"]
DAY_S = 24 * 3600


@pytest.fixture
def task(federate):
    """The first member's folder of a task that stopped between an update and its opening."""
    federation = federate(3)
    return stopped(federation, federation.ready().task_id)


def stopped(federation, task_id):
    folder = NodeHome(federation.homes[0]).task(task_id)
    shares = ShareFiles(folder.path)
    for attempt in (1, 2):
        shares.make_reader_key(1, attempt)
    for name in {*SECRET, *DRAFTS, *KEPT}:
        file = folder.path / name
        if not file.exists():
            file.write_bytes(b"?")
    return folder


def home_of(task):
    return task.path.parents[1]


def names(task):
    return {file.name for file in task.path.iterdir()}


def test_all_that_could_open_or_sign_again_is_deleted_and_the_records_stay(task):
    assert set(SECRET) <= names(task)
    kept = {name: (task.path / name).read_bytes() for name in KEPT}
    assert sorted(forget_task(home_of(task), task.task_id)) == sorted(SECRET)
    assert not {*SECRET, *DRAFTS} & names(task)
    assert {name: (task.path / name).read_bytes() for name in KEPT} == kept
    assert (home_of(task) / "identity.key").exists()
    assert (home_of(task) / "sealing.key").exists()


def test_other_tasks_keep_their_keys(task):
    other = task.path.with_name("0x" + "ab" * 32)
    shutil.copytree(task.path, other)
    before = {file.name for file in other.iterdir()}
    forget_task(home_of(task), task.task_id)
    assert {file.name for file in other.iterdir()} == before


def test_the_ledger_stays_and_says_that_the_node_is_out(task):
    task.save_progress(task.load_progress().changed(opened_round=1))
    forget_task(home_of(task), task.task_id)
    progress = task.load_progress()
    assert progress.opened_round == 1
    assert progress.halted == "forgotten by its operator"


def test_the_reason_for_which_a_node_had_stopped_is_not_lost(task):
    task.save_progress(task.load_progress().changed(halted="two manifests"))
    forget_task(home_of(task), task.task_id)
    halted = task.load_progress().halted
    assert is_forgotten(halted)
    assert "two manifests" in halted
    assert not is_forgotten("two manifests")
    assert not is_forgotten(None)


def test_forgetting_again_deletes_what_is_left_and_changes_no_more(task):
    forget_task(home_of(task), task.task_id)
    ledger = (task.path / "progress.json").read_bytes()
    ShareFiles(task.path).make_reader_key(3, 1)
    assert forget_task(home_of(task), task.task_id) == ("reader-3-1.key",)
    assert forget_task(home_of(task), task.task_id) == ()
    assert (task.path / "progress.json").read_bytes() == ledger


def test_an_unknown_task_is_an_error_and_leaves_no_folder(task):
    unknown = "0x" + "00" * 32
    with pytest.raises(ConfigError, match=unknown):
        forget_task(home_of(task), unknown)
    assert not task.path.with_name(unknown).exists()


def test_a_ledger_that_cannot_be_read_keeps_no_keys_alive(task):
    (task.path / "progress.json").write_bytes(b"{")
    with pytest.raises(RecordError):
        forget_task(home_of(task), task.task_id)
    assert not set(SECRET) & names(task)
    assert (task.path / "progress.json").read_bytes() == b"{"


def test_a_file_that_cannot_be_deleted_is_named_and_all_others_are_deleted(task):
    # A folder in a file's place: root, too, cannot unlink it.
    (task.path / "reader-1-1.key").unlink()
    (task.path / "reader-1-1.key").mkdir()
    with pytest.raises(ConfigError, match=r"reader-1-1\.key"):
        forget_task(home_of(task), task.task_id)
    assert {*SECRET} & names(task) == {"reader-1-1.key"}
    assert is_forgotten(task.load_progress().halted)


def test_a_message_that_is_being_worked_on_is_waited_for(task):
    # What the message writes last must be forgotten, too.
    done = threading.Event()

    def forget():
        forget_task(home_of(task), task.task_id)
        done.set()

    with task.locked():
        thread = threading.Thread(target=forget)
        thread.start()
        assert not done.wait(0.3)
        assert set(SECRET) <= names(task)
        ShareFiles(task.path).make_reader_key(2, 1)
    thread.join(10)
    assert done.is_set()
    assert not {*SECRET, "reader-2-1.key"} & names(task)


def leftovers(task):
    return [finding for finding in found(task) if finding.subject == "leftover keys"]


def found(task):
    return examine(home_of(task), home_of(task).parent / "no-app")


def make_older(task, age_s, only=None):
    for name in [only] if only else OPENS_SHARES:
        then = time.time() - age_s
        os.utime(task.path / name, (then, then))


def unreachable(task):
    file = home_of(task) / "config.toml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("devnet_folder")))


@pytest.mark.parametrize("phase", ["open", "running"])
def test_keys_of_a_task_that_the_chain_shows_going_on_are_in_order(federate, phase):
    federation = federate(3)
    invitation = federation.create()
    if phase == "running":
        federation.start(invitation)
    else:
        federation.join(invitation, 0)
    task = stopped(federation, invitation.task_id)
    make_older(task, 9 * DAY_S)
    assert leftovers(task) == []


def test_the_doctor_finds_keys_of_a_task_that_was_cancelled(federate):
    federation = federate(3)
    invitation = federation.create()
    federation.start(invitation)
    task = stopped(federation, invitation.task_id)
    federation.chain.connector.cancel_task(task.task_id, "stopped")
    (finding,) = leftovers(task)
    assert finding.state == "bad"
    assert "cancelled" in finding.detail
    assert all(name in finding.detail for name in OPENS_SHARES)
    assert finding.remedy == f"Run: twopm node forget {task.task_id}"
    for name in OPENS_SHARES[:2]:
        (task.path / name).unlink()
    assert len(leftovers(task)) == 1
    forget_task(home_of(task), task.task_id)
    assert leftovers(task) == []


def test_without_a_chain_the_age_of_the_newest_key_decides(task):
    unreachable(task)
    make_older(task, DAY_S + 60)
    (finding,) = leftovers(task)
    assert finding.state == "note"
    assert f"twopm node forget {task.task_id}" in finding.remedy
    make_older(task, DAY_S - 60, only=OPENS_SHARES[2])
    assert leftovers(task) == []


def test_a_task_that_the_chain_does_not_know_is_judged_by_age(task, chain):
    unknown = task.path.with_name("0x" + "cd" * 32)
    shutil.copytree(task.path, unknown)
    (left,) = leftover_keys(home_of(task), chain.reader, now_s=time.time() + 2 * DAY_S)
    assert (left.task_id, left.ended) == (unknown.name, None)


def test_the_doctor_takes_a_forgotten_task_for_no_fault(task):
    forget_task(home_of(task), task.task_id)
    assert [finding for finding in found(task) if finding.subject == "task"] == []
