"""What the demo leaves behind and says at its end; the whole story is in tests/deployed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from twopm_flower.cli.demo_folder import remove_former_demos, work_folder
from twopm_flower.cli.demo_report import next_command, next_steps, this_program
from twopm_flower.cli.demo_story import DemoOptions, DemoResult
from twopm_flower.node.doctor import examine
from twopm_flower.node.runs import load_run
from twopm_flower.verify import verify_bundle


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def result(finished):
    run = load_run(finished.coordinator, None)
    return DemoResult(
        options=DemoOptions(),
        label="SYNTHETIC student-mat",
        synthetic=True,
        bundle=run.bundle,
        bundle_path=run.path,
        coordinator=finished.coordinator,
        timings=run.timings,
        report=verify_bundle(run.bundle, chain=None),
        comparison=None,
        seconds={"train": 1.0},
    )


def test_a_new_demo_removes_finished_and_interrupted_ones_once_it_has_succeeded(home):
    with work_folder(None) as finished:
        (finished / "bundle.json").touch()
    with pytest.raises(KeyboardInterrupt), work_folder(None) as interrupted:
        raise KeyboardInterrupt
    with work_folder(None) as latest:
        assert finished.exists()
        assert interrupted.exists()
    assert remove_former_demos(latest) == 2
    assert list((home / "demo").iterdir()) == [latest]


def test_a_demo_that_still_runs_is_left_alone(home):
    script = (
        "from twopm_flower.cli.demo_folder import work_folder\n"
        "with work_folder(None) as folder:\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        running = Path(other.stdout.readline().strip())
        with work_folder(None) as latest:
            pass
        assert remove_former_demos(latest) == 0
        assert running.exists()
        # Killed, it can leave no mark of its end; the system frees its lock.
        other.kill()
        other.wait()
    assert remove_former_demos(latest) == 1
    assert not running.exists()


def test_what_else_is_beside_the_demos_stays(home):
    with work_folder(None) as latest:
        pass
    (home / "demo" / "mine").mkdir()
    assert remove_former_demos(latest) == 0
    assert (home / "demo" / "mine").exists()


def test_a_home_that_the_demo_made_is_closed_to_others(home):
    former = os.umask(0o022)
    try:
        with work_folder(None):
            pass
    finally:
        os.umask(former)
    assert [f for f in examine(home, home.parent / "no-app") if f.state == "bad"] == []


def test_insisting_on_real_data_that_is_not_there_exits_with_3(home, twopm, tmp_path):
    answer = twopm("demo", "--require-real", "--data", tmp_path / "nowhere")
    assert answer.status == 3
    assert "nowhere" in answer.err
    assert twopm("demo", "--data", tmp_path / "nowhere").status == 1


def test_only_paths_make_the_last_lines_longer_than_80_columns(result):
    lines = Text.from_markup(next_steps(result)).plain.splitlines()
    long = [line for line in lines if len(line) > 80]
    assert all(str(result.coordinator) in line for line in long)
    assert f"  {result.bundle_path}" in lines


def test_the_suggested_command_names_the_run_and_works_without_twopm_on_the_path(
    result, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", os.defpath)
    environment, words = next_command(result)
    assert not words.startswith("twopm ")
    suggested = Text.from_markup(next_steps(result)).plain.split("Next\n")[1]
    answer = subprocess.run(
        ["/bin/sh", "-c", f"{suggested} --offline"],
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.bundle.task_id in answer.stdout, answer.stderr
    assert shlex.split(environment) == [f"TWOPM_HOME={result.coordinator}"]


def test_twopm_on_the_path_is_called_by_its_name(tmp_path, monkeypatch):
    script = Path(sys.executable).with_name("twopm")
    monkeypatch.setenv("PATH", str(script.parent))
    assert this_program() == ["twopm"]
    # Another installation's twopm is not this one.
    (tmp_path / "twopm").write_text("#!/bin/sh\n")
    (tmp_path / "twopm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(script.parent.parent)
    assert this_program() == [f"{script.parent.name}/twopm"]
    monkeypatch.chdir(script.parent)
    assert this_program() == ["./twopm"]
