"""Delivers outboxes in child processes that are killed by the kernel, one plan a line."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.evm import EvmConnector
from twopm_flower.chain.outbox import Outbox
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.keystore import LocalSigner


def deliver(plan) -> None:
    def observe(step: str, number: int) -> None:
        if [step, number] == plan.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)

    connector = EvmConnector(
        plan["url"],
        Deployment.from_json(plan["deployment"]),
        LocalSigner.from_file(Path(plan["key_file"])),
    )
    outbox = Outbox(Path(plan["outbox"]), observe=observe)
    for call in plan["calls"]:
        outbox.enqueue(RoundCall(**call))
    outbox.deliver(connector)
    outbox.close()


def child(plan) -> int:
    # Imports take seconds and are done once; each child starts with nothing but them.
    if (pid := os.fork()) == 0:
        try:
            deliver(plan)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def main() -> None:
    for line in sys.stdin:
        plan = json.loads(line)
        pids = [child(each) for each in plan.get("together", [plan])]
        if "kill_after_s" in plan:
            time.sleep(plan["kill_after_s"])
            os.kill(pids[0], signal.SIGKILL)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main()
