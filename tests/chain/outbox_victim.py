"""Queues two rounds and delivers them, and is killed by the kernel at a given step."""

import json
import os
import signal
import sys
from pathlib import Path

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.evm import EvmConnector
from twopm_flower.chain.outbox import Outbox
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.keystore import LocalSigner


def main() -> None:
    plan = json.loads(sys.stdin.read())

    def observe(step: str, number: int) -> None:
        if [step, number] == plan["die_at"]:
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


if __name__ == "__main__":
    main()
