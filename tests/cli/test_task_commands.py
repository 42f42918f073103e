"""Commands around a task that the deployment guide does not come to."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from twopm_flower.cli.task_views import show_roster
from twopm_flower.config import load_settings
from twopm_flower.federated.home import NodeHome


@pytest.fixture
def node(finished, tmp_path):
    """A copy of a node's home that a test may spoil."""
    import shutil

    shutil.copytree(finished.homes[1], tmp_path / "node")
    return tmp_path / "node"


@pytest.fixture
def chain_file(finished, tmp_path):
    file = tmp_path / "chain.toml"
    text = (finished.homes[0] / "config.toml").read_text().split("[node]")[0]
    file.write_text(text.replace("[chain]\n", ""))
    return file


def create(twopm, home, folder, *more):
    return twopm(
        "task", "create", "--app", folder / "app", "--out", folder / "invitation.json",
        "--synthetic", "--home", home, *more,
    )  # fmt: skip


def test_a_home_lists_and_shows_its_tasks(twopm, finished):
    listed = twopm("task", "list", "--home", finished.coordinator, "--json").json
    assert [task["task_id"] for task in listed] == [finished.task_id]
    assert listed[0]["members"] == 3
    shown = twopm("task", "list", "--home", finished.coordinator).out
    assert finished.task_id in shown
    assert "3 members" in shown
    terms = twopm("task", "show", "--home", finished.homes[0], "--json").json["terms"]
    assert terms["rounds"] == 2
    assert "at least 3" in twopm("task", "show", "--home", finished.homes[0]).out


def test_an_empty_home_says_that_it_is_empty(twopm, tmp_path):
    assert twopm("task", "list", "--home", tmp_path).out.strip() == "No tasks here."
    assert "no task" in twopm("node", "status", "--home", tmp_path).out


def test_a_task_is_created_joined_and_cancelled(twopm, finished, own_copy, node, tmp_path):
    created = create(twopm, own_copy, tmp_path, "--rounds", 4, "--run-config", "lr=0.5", "--json")
    assert created.status == 0, created.err
    task_id = created.json["task_id"]
    run_config = (tmp_path / "run-config.toml").read_text()
    assert "rounds = 4" in run_config
    assert "lr = 0.5" in run_config
    joined = twopm(
        "task", "join", tmp_path / "invitation.json", "--data",
        finished.folder / "student-mat.csv", "--partition", 1, "--partitions", 3,
        "--out", tmp_path / "join.json", "--yes", "--home", node, "--json",
    )  # fmt: skip
    assert joined.status == 0, joined.err
    assert joined.json["training_rows"] == 24
    admitted = twopm("task", "admit", tmp_path / "join.json", "--home", own_copy, "--json")
    assert admitted.json[0]["members"] == 1
    early = twopm("task", "start", task_id, "--home", own_copy)
    assert early.status == 1
    assert "1 members; it needs 3" in early.err
    cancelled = twopm("task", "cancel", task_id, "--yes", "--home", own_copy)
    assert cancelled.status == 0
    state = twopm("chain", "events", task_id, "--home", own_copy, "--json").json["task"]["state"]
    assert state == "cancelled"


def test_a_plaintext_task_says_so_in_capitals(twopm, own_copy, tmp_path):
    created = create(twopm, own_copy, tmp_path, "--trust-mode", "plaintext")
    assert created.status == 0, created.err
    assert "PLAINTEXT" in created.out
    assert "SYNTHETIC" in created.out


def test_a_created_task_says_what_to_do_next_and_loses_no_earlier_invitation(
    twopm, own_copy, tmp_path
):
    first = create(twopm, own_copy, tmp_path)
    assert first.status == 0, first.err
    assert "initial model" in first.out
    assert not re.search(r"^\w*_\w* ", first.out, re.MULTILINE)
    assert "".join(first.out.split()).endswith("invitation.jsontothenodes'operators.")
    kept = {name: (tmp_path / name).read_bytes() for name in ("invitation.json", "run-config.toml")}
    for name, data in kept.items():
        (tmp_path / ({*kept} - {name}).pop()).unlink()
        again = create(twopm, own_copy, tmp_path, "--rounds", 9)
        assert again.status == 1
        assert f"{name} exists, from an earlier task" in again.err
        assert (tmp_path / name).read_bytes() == data
        for other, restored in kept.items():
            (tmp_path / other).write_bytes(restored)
    tasks = twopm("task", "list", "--home", own_copy, "--json").json
    assert len(tasks) == 2  # the finished run's, and the first
    forced = create(twopm, own_copy, tmp_path, "--rounds", 9, "--force")
    assert forced.status == 0, forced.err
    assert "rounds = 9" in (tmp_path / "run-config.toml").read_text()


def test_the_thresholds_of_one_time_keys_are_told_for_each_number_of_members(
    twopm, own_copy, tmp_path
):
    made = create(
        twopm, own_copy, tmp_path, "--trust-mode", "one-time-key", "--colluders", 1,
        "--min-contributors", 4,
    )  # fmt: skip
    told = " ".join(made.out.split())
    assert "open a sum: 3 of 4, 4 of 5, 4 of 6, 5 of 7, ... 6 of 10" in told
    assert "the server, with one member, reads sums only" in told


@pytest.mark.parametrize("named", [("--colluders", 1), ("--run-config", "colluders=1")])
def test_colluders_are_refused_where_nobody_may_collude(twopm, own_copy, tmp_path, named):
    made = create(twopm, own_copy, tmp_path, *named)
    assert made.status == 1
    assert "with shared-key no node may collude" in made.err
    assert not (tmp_path / "invitation.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "nowhere.csv"), "there is no nowhere.csv"),
        (("--partition", 3, "--partitions", 3), "no partition 3 of 3"),
        (("--partition", 1), "belong together"),
    ],
)
def test_rows_that_cannot_be_found_are_refused_before_the_terms_are_shown(
    twopm, own_copy, node, tmp_path, options, said
):
    create(twopm, own_copy, tmp_path)
    joined = twopm(
        "task", "join", tmp_path / "invitation.json", *options, "--yes", "--home", node
    )  # fmt: skip
    assert joined.status == 1
    assert said in joined.err
    assert joined.out == ""


def test_a_quorum_below_a_majority_is_warned_of_before_anybody_agrees(twopm, own_copy, tmp_path):
    weak = create(twopm, own_copy, tmp_path, "--quorum", 1)
    assert "Warning: 1 of 3 members are no majority" in weak.out
    strong = create(twopm, own_copy, tmp_path, "--force")
    assert "3 must sign the same model; no majority of more than 5" in strong.out
    assert "Warning" not in strong.out


@pytest.mark.parametrize(("quorum", "warned"), [(1, True), (2, False)])
def test_a_roster_is_shown_with_a_warning_where_the_quorum_is_no_majority(
    twopm, finished, capfd, quorum, warned
):
    roster = NodeHome(finished.homes[0]).task(finished.task_id).roster
    for as_json in (False, True):
        show_roster(finished.task_id, roster, quorum, "roster.json", as_json)
        assert ("1 of 3 members are no majority" in capfd.readouterr().out) is warned


def test_a_home_without_an_account_creates_no_task(twopm, tmp_path, chain_file):
    home = tmp_path / "home"
    used = twopm("chain", "use", chain_file, "--home", home, "--json")
    assert used.json["chain_id"] == load_settings(home).chain.chain_id
    outcome = create(twopm, home, tmp_path)
    assert outcome.status == 1
    assert "no coordinator's key" in outcome.err
    assert not (tmp_path / "app").exists()


def test_a_home_without_a_chain_says_how_a_coordinator_gets_one(twopm, tmp_path):
    (tmp_path / "home").mkdir()
    for command in (("chain", "status"), ("task", "admit", tmp_path / "a.join.json")):
        outcome = twopm(*command, "--home", tmp_path / "home")
        assert outcome.status == 1
        assert "'twopm chain deploy'" in outcome.err
        assert "'twopm chain use chain.toml'" in outcome.err


def test_too_few_contributors_are_answered_with_the_option_that_mends_it(twopm, own_copy, tmp_path):
    more = ("--trust-mode", "one-time-key", "--colluders", "5")
    outcome = create(twopm, own_copy, tmp_path, *more)
    assert outcome.status == 1
    assert "Pass --min-contributors 7, or fewer --colluders." in outcome.err


def test_the_roster_and_the_key_can_be_confirmed_again(twopm, finished, own_copy, node, tmp_path):
    started = twopm(
        "task", "start", "--out", tmp_path / "roster.json", "--home", own_copy, "--json"
    )
    assert len(started.json["members"]) == 3
    confirmed = twopm(
        "task", "confirm", "--roster", tmp_path / "roster.json", "--home", node, "--json"
    )
    assert confirmed.status == 0, confirmed.err
    assert confirmed.json["roster_digest"] == started.json["roster_digest"]
    deal = tmp_path / "deal.json"
    dealt = twopm("keys", "deal", "--out", deal, "--home", finished.homes[0], "--json").json
    accepted = twopm("keys", "accept", deal, "--home", node, "--json").json
    assert accepted["key_id"] == dealt["key_id"]
    known = twopm("task", "key", deal, "--home", own_copy, "--json").json
    assert known["key_id"] == dealt["key_id"]


def test_keys_are_shown_by_name_only(twopm, finished):
    home = finished.homes[0]
    shown = twopm("keys", "show", "--home", home, "--json").json
    key = NodeHome(home).task(finished.task_id).shared_key
    assert shown["tasks"] == {finished.task_id: key.key_id}
    text = twopm("keys", "show", "--home", home).out
    assert key.secret.reveal().hex() not in text
    assert (home / "identity.key").read_text().strip().removeprefix("0x") not in text


def test_a_stopped_node_is_resumed_after_its_reason_was_shown(twopm, finished, node):
    folder = NodeHome(node).task(finished.task_id)
    folder.save_progress(folder.load_progress().changed(halted="two manifests"))
    status = twopm("node", "status", "--home", node)
    assert status.status == 1
    assert "stopped: two manifests" in status.out
    resumed = twopm("node", "resume", "--yes", "--home", node)
    assert resumed.status == 0
    assert "two manifests" in resumed.out
    states = twopm("node", "status", "--home", node, "--json")
    assert states.status == 0
    assert states.json[0]["halted"] is None
    again = twopm("node", "resume", "--yes", "--home", node)
    assert again.status == 1
    assert "did not stop" in again.err


def test_the_pinned_chain_answers(twopm, finished, chain_file, tmp_path):
    shown = twopm("chain", "status", "--chain", chain_file, "--home", tmp_path, "--json").json
    assert shown["head_block"] > 0
    text = chain_file.read_text()
    chain_file.write_text(re.sub(r"chain_id = \d+", "chain_id = 7", text))
    wrong = twopm("chain", "status", "--chain", chain_file, "--home", tmp_path)
    assert wrong.status == 1
    assert "chain id is" in wrong.err


def test_the_embedded_chain_runs_until_it_is_told_to_stop(twopm, tmp_path):
    command = [sys.executable, "-m", "twopm_flower.cli", "chain", "devnet", "--json"]
    process = subprocess.Popen(
        [*command, "--folder", str(tmp_path / "chain"), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = json.loads(process.stdout.readline())
        deployed = twopm(
            "chain", "deploy", "--rpc", ready["url"], "--key", ready["key"],
            "--out", tmp_path / "chain.toml", "--home", tmp_path / "home", "--json",
        )  # fmt: skip
        assert deployed.status == 0, deployed.err
        assert deployed.json["chain_id"] == ready["chain_id"]
        assert "devnet_folder" not in (tmp_path / "chain.toml").read_text()
        settings = load_settings(tmp_path / "home")
        assert settings.coordinator.key == Path(ready["key"])
        again = twopm(
            "chain", "deploy", "--rpc", ready["url"], "--key", ready["key"],
            "--out", tmp_path / "second.toml", "--home", tmp_path / "home",
        )  # fmt: skip
        assert again.status == 1
        assert "pins a chain already" in again.err
        assert not (tmp_path / "second.toml").exists()
        clash = twopm("chain", "devnet", "--folder", tmp_path / "chain", "--port", "0", "--json")
        assert clash.status == 1
        assert "embedded chain" in clash.err
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        process.stdout.close()


def test_a_bundle_without_all_ciphertexts_is_not_called_complete(twopm, finished, own_copy):
    kept = own_copy / "runs" / finished.task_id / "ciphertexts"
    next(iter(kept.iterdir())).unlink()
    outcome = twopm("bundle", "export", "--with-ciphertexts", "--home", own_copy)
    assert outcome.status == 1
    assert "by fingerprints" in outcome.err
    report = twopm("verify", "--home", own_copy, "--json")
    assert report.status == 0
    assert report.json["level"] == "fingerprints"
