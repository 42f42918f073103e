"""What people see of a finished run: verify, rounds, show, bundle, model, events."""

import json
import subprocess
import sys

from answered_request import anchored, answered
from safetensors.numpy import load_file

from twopm_flower.config import CONFIG_FILE, load_settings
from twopm_flower.federated.chain_access import open_connector
from twopm_flower.verify.checklist import load_bundle


def test_a_run_in_its_coordinators_home_is_verified_with_its_sums_redone(twopm, finished):
    outcome = twopm("verify", "--home", finished.coordinator)
    assert outcome.status == 0, outcome.err
    assert "Every step holds." in outcome.out
    assert "re-executed" in outcome.out
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


def test_verify_as_json_prints_nothing_else(twopm, finished):
    report = twopm("verify", finished.task_id, "--home", finished.coordinator, "--json").json
    assert report["exit_code"] == 0
    assert [step["number"] for step in report["steps"]] == list(range(1, 13))
    assert {step["status"] for step in report["steps"]} == {"passed"}


def test_a_stranger_with_the_chain_file_verifies_by_fingerprints(twopm, finished, tmp_path):
    chain = finished.folder / "chain.toml"
    chain.write_text((finished.coordinator / CONFIG_FILE).read_text().split("[coordinator]")[0])
    text = chain.read_text().replace("[chain]", "")
    chain.write_text("\n".join(line for line in text.splitlines() if "devnet_folder" not in line))
    bundle = tmp_path / "bundle.json"
    exported = twopm("bundle", "export", "--out", bundle, "--home", finished.coordinator)
    assert exported.status == 0, exported.err
    stranger = tmp_path / "stranger"
    outcome = twopm("verify", bundle, "--chain", chain, "--home", stranger, "--json")
    assert outcome.status == 0, outcome.out
    assert outcome.json["level"] == "fingerprints"
    strict = twopm(
        "verify", bundle, "--chain", chain, "--home", stranger, "--require", "re-executed"
    )
    assert strict.status == 1
    assert "not re-executed" in strict.err


def test_an_auditors_bundle_redoes_the_sums_and_is_for_the_auditor_alone(twopm, finished, tmp_path):
    bundle = tmp_path / "audit.json"
    home = finished.coordinator
    assert (
        twopm("bundle", "export", "--with-ciphertexts", "--out", bundle, "--home", home).status == 0
    )
    assert bundle.stat().st_mode & 0o077 == 0
    strict = twopm("verify", bundle, "--require", "re-executed", "--home", home)
    assert strict.status == 0, strict.err


def test_nothing_is_exported_into_a_folder_that_does_not_exist(twopm, finished, tmp_path):
    out = tmp_path / "nowhere" / "x.json"
    task = finished.task_id
    for command, home in (
        (("bundle", "export"), finished.coordinator),
        (("model", "export", task), finished.homes[0]),
    ):
        outcome = twopm(*command, "--out", out, "--home", home)
        assert outcome.status == 1
        assert f"there is no folder {out.parent}" in outcome.err
        assert not out.parent.exists()
        assert "is a folder" in twopm(*command, "--out", tmp_path, "--home", home).err


def test_without_a_chain_everything_may_hold_and_nothing_is_anchored(twopm, finished, tmp_path):
    outcome = twopm("verify", finished.bundle, "--home", tmp_path)
    assert outcome.status == 2
    assert "Every step that could be checked holds; no chain confirms it." in outcome.out
    offline = twopm("verify", finished.bundle, "--offline", "--home", finished.coordinator)
    assert offline.status == 2


def test_a_changed_bundle_fails_and_the_step_is_named(twopm, finished, tmp_path):
    value = json.loads(finished.bundle.read_bytes())
    value["rounds"][0]["manifest"]["samples"] += 1
    forged = tmp_path / "forged.json"
    forged.write_bytes(type(load_bundle(finished.bundle)).from_json(value).to_bytes())
    outcome = twopm("verify", forged, "--home", finished.coordinator)
    assert outcome.status == 1
    assert "does not hold" in outcome.out
    report = twopm("verify", forged, "--home", finished.coordinator, "--json").json
    assert report["first_failure"] is not None


def test_a_run_of_another_chain_than_the_pinned_one_is_an_error(twopm, finished, own_copy):
    settings = own_copy / CONFIG_FILE
    settings.write_text(settings.read_text().replace('genesis_hash = "0x', 'genesis_hash = "0x0'))
    text = settings.read_text().replace('genesis_hash = "0x0', 'genesis_hash = "0x', 1)
    start = text.index("genesis_hash") + len('genesis_hash = "0x')
    settings.write_text(text[:start] + ("0" if text[start] != "0" else "1") + text[start + 1 :])
    outcome = twopm("verify", "--home", own_copy)
    assert outcome.status == 1
    assert "this home" in outcome.err


def test_the_embedded_chain_is_read_from_its_folder_when_nobody_serves_it(
    twopm, finished, own_copy
):
    settings = own_copy / CONFIG_FILE
    url = finished.chain.rpc_url
    settings.write_text(settings.read_text().replace(url, "http://127.0.0.1:9"))
    outcome = twopm("verify", "--home", own_copy)
    assert outcome.status == 0, outcome.out + outcome.err


def test_a_receipt_of_the_runs_model_is_verified_with_its_chain(twopm, finished, tmp_path):
    model = tmp_path / "model.safetensors"
    twopm("model", "export", finished.task_id, "--out", model, "--home", finished.homes[0])
    path = tmp_path / "receipt.json"
    connector = open_connector(load_settings(finished.coordinator))
    file = answered(load_bundle(finished.bundle), load_file(model), connector.account, path)
    checked = ("verify", "--receipt", path, "--home", finished.coordinator, "--json")
    report = twopm(*checked, "--model", model).json
    assert (report["exit_code"], report["level"]) == (2, "redone")
    path.write_bytes(anchored(file, connector).to_bytes())
    report = twopm(*checked, "--model", model).json
    assert (report["exit_code"], report["anchored"]) == (0, True)
    outcome = twopm(*checked[:-1], "--require", "re-executed")
    assert outcome.status == 1
    assert "--model" in outcome.err


def test_rounds_are_a_table_and_json_and_csv(twopm, finished, tmp_path):
    home = finished.coordinator
    table = twopm("rounds", "--home", home)
    assert table.status == 0
    assert "SYNTHETIC" in table.out
    assert all(len(line) <= 80 for line in table.out.splitlines())
    rows = twopm("rounds", "--home", home, "--json").json["rounds"]
    assert [row["round"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert row["gas"] > 0
        assert row["contributors"] == 3
    file = tmp_path / "rounds.csv"
    twopm("rounds", "--csv", file, "--home", home)
    assert len(file.read_text().splitlines()) == 3


def test_the_upload_in_the_table_is_what_was_measured(twopm, finished):
    home = finished.coordinator
    rows = twopm("rounds", "--home", home, "--json").json["rounds"]
    timings = json.loads((finished.bundle.parent / "timings.json").read_bytes())
    measured = {size for entry in timings["rounds"] for size in entry["upload_bytes"].values()}
    assert measured == {row["upload_bytes"] for row in rows}


def test_a_round_is_shown_with_its_updates(twopm, finished):
    shown = twopm("show", 1, "--home", finished.coordinator)
    assert shown.status == 0
    assert shown.out.count("added") == 3
    value = twopm("show", 2, "--home", finished.coordinator, "--json").json
    assert value["manifest"]["round"] == 2
    assert len(value["updates"]) == 3
    missing = twopm("show", 3, "--home", finished.coordinator)
    assert missing.status == 1
    assert "no round 3; the run has 2" in missing.err


def test_a_node_hands_over_the_model_that_everybody_signed(twopm, finished, tmp_path):
    file = tmp_path / "model.safetensors"
    exported = twopm("model", "export", "--out", file, "--home", finished.homes[0], "--json").json
    bundle = load_bundle(finished.bundle)
    assert exported["round"] == 2
    assert exported["digest"] == bundle.rounds[-1].models[0].statement.model_digest
    assert {name: a.shape for name, a in load_file(file).items()} == {
        array.name: array.shape for array in bundle.terms.arrays
    }


def test_the_coordinator_has_no_model_to_hand_over(twopm, finished):
    outcome = twopm("model", "export", "--home", finished.coordinator)
    assert outcome.status == 1
    assert "Nodes open models" in outcome.err


def test_the_chain_tells_the_story_of_a_task(twopm, finished):
    home = finished.coordinator
    value = twopm("chain", "events", "--home", home, "--json").json
    assert value["task"]["state"] == "finalised"
    assert [record["round"] for record in value["rounds"]] == [1, 2]
    assert len(value["members"]) == 3
    shown = twopm("chain", "events", finished.task_id, "--home", home)
    assert shown.out.count("joined") == 3
    assert "finalised" in shown.out


def test_all_events_of_the_chain_are_told_and_a_cursor_goes_on(twopm, finished, tmp_path):
    home, cursor = finished.coordinator, tmp_path / "cursor.sqlite"
    told = twopm("chain", "events", "--home", home, "--cursor", cursor, "--json").json
    names = [event["name"] for event in told["events"]]
    assert names.count("node_registered") == 3
    # Other tests anchor receipts on the chain that they share.
    assert [name for name in names if name != "receipts_anchored"][-1] == "task_finalised"
    again = twopm("chain", "events", "--home", home, "--cursor", cursor, "--json").json
    assert again == {"events": [], "cursor": told["cursor"]}
    shown = twopm("chain", "events", finished.task_id, "--home", home, "--from", 0)
    assert shown.out.count("recorded") == 2
    assert "registered" not in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_nothing_is_left_to_deliver_and_delivering_again_is_harmless(twopm, finished, own_copy):
    done = twopm("chain", "deliver", "--home", own_copy, "--json")
    assert done.status == 0, done.err
    assert done.json == {"delivered": 0, "pending": 0, "settling": 0}


def test_records_that_wait_are_delivered_and_the_bundle_tells(twopm, finished, own_copy):
    from twopm_flower.chain.outbox import Outbox

    folder = own_copy / "runs" / finished.task_id
    outbox = Outbox(folder / "outbox.sqlite")
    with outbox._store._writing() as connection:
        connection.execute("UPDATE entries SET state = 'queued'")
    outbox.close()
    bundle = load_bundle(folder / "bundle.json")
    bare = bundle.model_copy(
        update={
            "rounds": tuple(r.model_copy(update={"record": None}) for r in bundle.rounds),
            "finalisation": None,
        }
    )
    (folder / "bundle.json").write_bytes(bare.to_bytes())
    sick = twopm("doctor", "--home", own_copy)
    assert sick.status == 1
    assert "twopm chain deliver" in sick.out
    assert twopm("chain", "deliver", "--home", own_copy).status == 0
    assert load_bundle(folder / "bundle.json") == bundle
    assert twopm("doctor", "--home", own_copy).status == 0


def test_doctor_calls_real_data_optional_and_keeps_its_advice_indented(
    twopm, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("TWOPM_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    told = twopm("doctor", "--home", tmp_path / "[none]")
    assert told.status == 0
    about_data = told.out.split("data: ")[1].splitlines()
    assert "required" not in told.out
    assert "Only if you want the real ones" in about_data[2]
    assert all(line.startswith("    ") for line in about_data[2:])
    assert "twopm data add student-mat.csv" in " ".join(told.out.split())


def test_verifying_offline_loads_no_flower_no_chain_client_and_no_encryption_library(finished):
    code = (
        "import sys\n"
        "from twopm_flower.cli import run\n"
        f"status = run(['verify', {str(finished.bundle)!r}, '--offline'])\n"
        "heavy = {'flwr', 'web3', 'tenseal', 'torch', 'pandas'} & set(sys.modules)\n"
        "print(status, heavy, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("2 set()"), done.stderr
