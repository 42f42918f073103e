"""Keeps a command and everything that it starts: when the keeper has to end, all of it ends.

Run as ``python -m twopm_flower.node.keeper COMMAND ...`` with a pipe as standard input. The
command's whole tree ends when the pipe closes (so also when the process that holds its other
end is killed), when the keeper is told to terminate, and when the command itself ends. A byte
``k`` on the pipe kills the tree at once, as a power cut would.

Flower starts helpers in sessions of their own, which a signal to a process group does not
reach. On Linux the keeper adopts orphans (``PR_SET_CHILD_SUBREAPER``, prctl(2)), so that
nothing escapes; elsewhere it finds what still has a parent in the tree.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

GRACE_S = 6.0
KILL_AT_ONCE = b"k"
_PR_SET_CHILD_SUBREAPER = 36
_TICK_S = 0.1


def descendants(root: int) -> list[int]:
    """Return the process ids below a process, without it, parents first."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents():
        children[parent].append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        for pid in children[waiting.pop()]:
            found.append(pid)
            waiting.append(pid)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run a command, and return its exit status once its whole tree has ended."""
    command = sys.argv[1:] if arguments is None else arguments
    _adopt_orphans()
    told_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: told_to_stop.append(received))
    quiet_input = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    try:
        child = os.posix_spawnp(command[0], command, os.environ, file_actions=[quiet_input])
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    status: int | None = None
    grace_s = GRACE_S
    while status is None and not told_to_stop:
        order = _order()
        if order is not None:
            grace_s = 0.0 if order == KILL_AT_ONCE else GRACE_S
            break
        status = _reap(child)
    status = _end_tree(child, status, grace_s)
    return 0 if status is None else os.waitstatus_to_exitcode(status) % 256


def _order() -> bytes | None:
    """Return what the pipe says within a tick: nothing, an order, or its end as ``b""``."""
    ready, _, _ = select.select([sys.stdin], [], [], _TICK_S)
    return os.read(sys.stdin.fileno(), 1) if ready else None


def _reap(child: int) -> int | None:
    """Collect all that have ended; return the status of the command if it is among them."""
    status = None
    while True:
        try:
            pid, ended_with = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = ended_with


def _end_tree(child: int, status: int | None, grace_s: float) -> int | None:
    asked: set[int] = set()
    deadline = time.monotonic() + grace_s
    while True:
        ended_with = _reap(child)
        status = ended_with if status is None else status
        left = descendants(os.getpid())
        if not left:
            return status
        patient = time.monotonic() < deadline
        for pid in left:
            # The tree may still grow while it ends, hence the look at it in every turn.
            if not patient or pid not in asked:
                _signal(pid, signal.SIGTERM if patient else signal.SIGKILL)
                asked.add(pid)
        time.sleep(_TICK_S / 2)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _parents() -> list[tuple[int, int]]:
    """Return (process id, parent's id) of all processes of this machine."""
    if Path("/proc/self/stat").exists():
        pairs = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                except OSError:
                    continue  # it ended in between
                # The name in parentheses may hold anything, so count from its end.
                state, parent = text.rpartition(")")[2].split()[:2]
                if state != "Z":
                    pairs.append((int(folder.name), int(parent)))
        return pairs
    with subprocess.Popen(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],  # noqa: S607  # found by PATH on every system
        stdout=subprocess.PIPE,
        text=True,
    ) as listing:
        rows = [line.split() for line in listing.communicate()[0].splitlines()]
    # The listing shows itself, too; it has ended by now.
    own = str(listing.pid)
    return [(int(pid), int(up)) for pid, up, state in rows if state[0] != "Z" and pid != own]


if __name__ == "__main__":
    sys.exit(main())
