import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twopm_flower.errors import DeploymentError
from twopm_flower.node.kept_process import KeptProcess
from twopm_flower.node.surroundings import ending_on_signals, flower_environment, free_port

# Starts a child in a session of its own, which no signal to a process group reaches.
DETACHING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
print("child", child.pid, flush=True)
time.sleep(600)
"""
PATIENT = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def start(tmp_path: Path, code: str) -> KeptProcess:
    return KeptProcess(
        "the command",
        [sys.executable, "-c", code],
        log=tmp_path / "log",
        environment=dict(os.environ),
    )


def first_word_after(process: KeptProcess, word: str) -> int:
    for line in process.lines():
        if line.startswith(word):
            return int(line.split()[1])
    raise AssertionError(process.text())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_stopping_ends_the_command_and_what_it_detached(tmp_path: Path) -> None:
    process = start(tmp_path, DETACHING.format(child=PATIENT))
    child = first_word_after(process, "child")
    pids = process.pids()
    assert child in pids
    process.stop()
    assert not any(is_running(pid) for pid in pids)


def test_killing_waits_for_nobody(tmp_path: Path) -> None:
    process = start(tmp_path, DETACHING.format(child=STUBBORN))
    child = first_word_after(process, "child")
    started = time.monotonic()
    process.kill()
    assert time.monotonic() - started < 4
    assert not is_running(child)


def test_all_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
from twopm_flower.node.kept_process import KeptProcess
process = KeptProcess("it", [sys.executable, "-c", {DETACHING.format(child=PATIENT)!r}],
                      log=Path({str(tmp_path / "log")!r}), environment=dict(os.environ))
for line in process.lines():
    print(line.split()[1], *process.pids(), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) >= 4
    parent.kill()
    parent.communicate()
    assert all(gone_within(pid, 10) for pid in pids)


def test_what_the_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    code = DETACHING.format(child=PATIENT).replace("time.sleep(600)", "sys.exit(3)", 1)
    code = code[::-1].replace("time.sleep(600)"[::-1], "sys.exit(3)"[::-1], 1)[::-1]
    process = start(tmp_path, code)
    child = first_word_after(process, "child")
    assert gone_within(child, 10)
    deadline = time.monotonic() + 10
    while process.status is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.stop()
    assert process.status == 3


def test_its_words_come_line_by_line_without_colours(tmp_path: Path) -> None:
    process = start(tmp_path, r"print('\x1b[92mgreen\x1b[0m'); print('last', end='')")
    assert list(process.lines()) == ["green", "last"]
    process.stop()


def test_a_failure_quotes_the_last_words_and_names_the_log(tmp_path: Path) -> None:
    process = start(tmp_path, "raise SystemExit('no luck')")
    assert list(process.lines()) == ["no luck"]
    error = process.failure()
    assert isinstance(error, DeploymentError)
    assert "the command ended with 1: no luck" in str(error)
    assert str(tmp_path / "log") in str(error)
    process.stop()


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    process = KeptProcess(
        "it", ["no-such-command"], log=tmp_path / "log", environment=dict(os.environ)
    )
    assert "cannot start no-such-command: No such file" in "\n".join(process.lines())
    process.stop()
    assert process.status == 127


def test_flower_gets_an_environment_without_telemetry_or_other_peoples_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWOPM_TASK", "somebody else's")
    monkeypatch.setenv("FLWR_DATABASE", "somebody else's")
    environment = flower_environment(tmp_path, TWOPM_HOME="home")
    assert "TWOPM_TASK" not in environment
    assert "FLWR_DATABASE" not in environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["TWOPM_HOME"] == "home"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_leaves_blocks_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), ending_on_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(5)}) > 1


def test_a_module_in_the_working_folder_does_not_stand_in_for_the_keeper(tmp_path: Path) -> None:
    (tmp_path / "ctypes.py").write_text("raise SystemExit('run from the working folder')\n")
    process = KeptProcess(
        "the command",
        [sys.executable, "-P", "-c", "print('ran')"],
        log=tmp_path / "log",
        environment=dict(os.environ),
        folder=tmp_path,
    )
    said = list(process.lines())
    process.stop()
    assert said == ["ran"]
    assert process.status == 0
