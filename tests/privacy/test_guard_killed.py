"""A guard whose process is killed by the kernel, at any moment, forgets nothing it has said."""

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import guard_victim
import pytest
from guard_victim import CAP, FEWEST, NODES, ask, planned

from twopm_flower.errors import ProtocolViolation
from twopm_flower.privacy.guard import Guard, Permit

SCRIPT = Path(guard_victim.__file__)
CREATION_CALLS = 5  # open, fsync, link, unlink; then open of the folder


def start(path: Path, *, die_at: int = 0) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, SCRIPT, path, str(die_at)], stdout=subprocess.PIPE, text=True
    )


def kill_while_asking(path: Path, moment: random.Random) -> int:
    """Kill a process in the middle of its permits and return the number of the last it got."""
    with start(path) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        for _ in range(moment.randrange(1, 6)):
            victim.stdout.readline()
        time.sleep(moment.uniform(0, 0.02))
        victim.kill()
        # A line without its end was being printed: the permit before it was answered.
        whole = [line for line in victim.stdout.read().splitlines(True) if line.endswith("\n")]
    with open_guard(path) as guard:
        remembered = len(guard.entries())
    return int(whole[-1]) if whole else remembered - 1


def open_guard(path: Path) -> "contextlib.closing[Guard]":
    return contextlib.closing(Guard(path, min_contributors=FEWEST, cap=CAP))


def other(permit: Permit) -> Permit:
    nodes = NODES if permit.survivors != NODES else NODES[:3]
    return Permit(permit.key_id, permit.round, permit.attempt, permit.manifest_digest, nodes)


def check(path: Path, answered: int) -> None:
    """Everything that was answered is remembered, in full, and at most one permit more."""
    with open_guard(path) as guard:
        entries = guard.entries()
        assert len(entries) in (answered + 1, answered + 2)
        assert entries == tuple(planned(index) for index in range(len(entries)))
        last = entries[-1]
        ask(guard, last)
        for permit in (*entries[-3:], last):
            with pytest.raises(ProtocolViolation):
                ask(guard, other(permit))
        assert guard.entries() == entries


@pytest.mark.parametrize(
    "kills", [5, pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(300)])]
)
def test_every_permit_that_was_answered_survives_a_kill(tmp_path, kills):
    moment = random.Random(20)
    path = tmp_path / "guard.sqlite"
    for _ in range(kills):
        check(path, kill_while_asking(path, moment))


@pytest.mark.parametrize("call", range(1, CREATION_CALLS + 1))
def test_a_guard_whose_making_was_killed_is_made_by_the_next_process(tmp_path, call):
    path = tmp_path / "guard.sqlite"
    with start(path, die_at=call) as victim:
        output, _ = victim.communicate(timeout=60)
    assert (victim.returncode, output) == (-9, "")
    with open_guard(path) as guard:
        assert guard.entries() == ()
        ask(guard, planned(0))


def test_a_kill_lets_go_of_the_file(tmp_path):
    path = tmp_path / "guard.sqlite"
    with start(path) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.kill()
        victim.wait()
        with open_guard(path) as guard:
            assert guard.entries()[:1] in ((), (planned(0),))
