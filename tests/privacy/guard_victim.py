"""Asks a guard for permits and says which it got, until somebody kills it."""

import os
import signal
import sys
from pathlib import Path

from twopm_flower.privacy.guard import Guard, Permit

KEY = "0x" + "4b" * 32
NODES = tuple(f"0x{'a' * 39}{index}" for index in range(4))
FEWEST, CAP = 3, 10_000


def planned(index: int) -> Permit:
    """Return the permit that is asked for as number `index`: one of each round."""
    return Permit(
        key_id=KEY,
        round=index + 1,
        attempt=index % 2 + 1,
        manifest_digest=f"0x{index:064x}",
        survivors=NODES[: 3 + index // 2 % 2],
    )


def ask(guard: Guard, permit: Permit) -> None:
    guard.permit(
        key_id=permit.key_id,
        round_=permit.round,
        attempt=permit.attempt,
        manifest_digest=permit.manifest_digest,
        survivors=permit.survivors,
    )


def die_at(call: int) -> None:
    """Have this process killed in place of its system call number `call` on a new file."""
    left = call

    def deadly(original):
        def counted(*arguments, **options):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return counted

    for name in ("open", "fsync", "link", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))


def main() -> None:
    path, call = Path(sys.argv[1]), int(sys.argv[2])
    if call:
        die_at(call)
    guard = Guard(path, min_contributors=FEWEST, cap=CAP)
    print("ready", flush=True)
    index = len(guard.entries())
    while True:
        ask(guard, planned(index))
        print(index, flush=True)
        index += 1


if __name__ == "__main__":
    main()
