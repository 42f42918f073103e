"""The first deployed run: the demo, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twopm_flower.privacy.keys import SharedKey
from twopm_flower.records.bundle import RunBundle
from twopm_flower.verify import verify_bundle

# Two that open a sum, beside the first, which opens none.
ROUNDS = 3

pytestmark = [pytest.mark.deployed, pytest.mark.timeout(900)]
TWOPM = [sys.executable, "-m", "twopm_flower.cli"]


def twopm(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TWOPM, *arguments],
        env={**os.environ, "TWOPM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo with spaces") / "kept"


@pytest.fixture(scope="module")
def told(folder: Path, student_data: Path) -> dict[str, Any]:
    answer = twopm(
        *["demo", "--json", "--require-real", "--data", str(student_data)],
        *["--keep", str(folder), "--rounds", str(ROUNDS)],
        home=folder.parent / "home",
    )
    assert answer.returncode == 0, answer.stderr
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def files_of_the_server(folder: Path) -> Iterator[Path]:
    places = [folder / "coordinator", folder / "chain", folder / "flower" / "database"]
    places += [folder / "flower" / "logs", folder / "flower" / "flower" / "superlink"]
    for place in places:
        yield from (path for path in place.rglob("*") if path.is_file())


def test_every_round_is_trained_by_all_recorded_and_verified(told: dict[str, Any]) -> None:
    assert told["verified"] is True
    assert told["engine"] == "deployment"
    assert told["trust_mode"] == "shared-key"
    assert [row["round"] for row in told["rounds"]] == list(range(1, ROUNDS + 1))
    for row in told["rounds"]:
        assert row["nodes"] == 3
        assert row["transaction"].startswith("0x")
        assert 0 < row["upload_bytes"] < 10_000
    assert all(row["gas"] <= 60_000 for row in told["rounds"][1:])


def test_the_real_students_are_used_and_named(told: dict[str, Any]) -> None:
    assert told["data"] == "UCI student-mat (395 rows)"
    assert told["synthetic"] is False


def test_encryption_changes_not_one_bit_of_the_model(told: dict[str, Any]) -> None:
    comparison = told["comparison"]
    assert comparison["identical_to_plaintext"] is True
    assert comparison["federated"] == comparison["plaintext"]
    # One split decides little; tests/models average over ten of them.
    assert abs(comparison["federated"]["accuracy"] - comparison["centralised"]["accuracy"]) < 0.05


def test_the_server_side_never_held_the_key(told: dict[str, Any], folder: Path) -> None:
    key_file = folder / "alice" / "tasks" / told["task_id"] / "shared.key"
    stored = key_file.read_bytes()
    SharedKey.load(key_file)
    needles = [stored[start : start + 24] for start in range(0, len(stored) - 24, 97)]
    looked_at = 0
    for file in files_of_the_server(folder):
        data = file.read_bytes()
        looked_at += 1
        assert not any(needle in data for needle in needles), file
    assert looked_at > 10


def still_running(folder: Path) -> list[bytes]:
    """Return the command lines of processes whose environment names the folder."""
    left = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                left.append((environment.parent / "cmdline").read_bytes())
        except OSError:
            continue
    return left


def test_nothing_is_left_running(told: dict[str, Any], folder: Path) -> None:
    assert still_running(folder) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_interrupting_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "kept"
    process = subprocess.Popen(
        [*TWOPM, "demo", "--keep", str(folder)],
        env={**os.environ, "TWOPM_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "SuperNodes up" in line:
            break
    assert still_running(folder)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "interrupted: everything was stopped" in rest
    assert still_running(folder) == []


def test_the_command_that_the_demo_suggests_verifies_its_own_run(
    told: dict[str, Any], tmp_path: Path
) -> None:
    # As after ./run.sh in a new shell, where no twopm is on the PATH.
    answer = subprocess.run(
        ["/bin/sh", "-c", f"{told['next']} --json"],
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert json.loads(answer.stdout)["task_id"] == told["task_id"]


def test_the_latest_run_of_the_coordinator_is_the_demo_s(told: dict[str, Any]) -> None:
    answer = twopm("rounds", "--json", home=Path(told["coordinator"]))
    assert answer.returncode == 0, answer.stderr
    assert told["task_id"] in answer.stdout
    listed = [path.name for path in Path(told["coordinator"]).glob("runs/*")]
    assert listed == [told["task_id"]]


def test_a_byte_changed_in_the_bundle_is_noticed(told: dict[str, Any], tmp_path: Path) -> None:
    bundle = RunBundle.from_bytes(Path(told["bundle"]).read_bytes())
    digest, aggregate = next(iter(bundle.aggregates.items()))
    flipped = ("A" if aggregate[40] != "A" else "B").join((aggregate[:40], aggregate[41:]))
    changed = bundle.model_copy(update={"aggregates": {**bundle.aggregates, digest: flipped}})
    report = verify_bundle(changed, chain=None)
    assert report.exit_code == 1
    assert report.first_failure is not None
