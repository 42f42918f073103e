"""One of several processes that deliver records at once: ``python -m ...chain_load``.

Reads a plan (JSON) from its first line, says ``ready``, starts at the next line, and says how
long its delivery took.
"""

import json
import sys
import time
from pathlib import Path

from twopm_flower.bench.chain_task import digest
from twopm_flower.chain.backends import backend
from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.outbox import Outbox
from twopm_flower.config import ChainSettings


def main() -> int:
    """Deliver the records of one task through an outbox."""
    plan = json.loads(sys.stdin.readline())
    chain = ChainSettings.model_validate(plan["chain"])
    chosen = backend(chain.family)
    connector = chosen.open_connector(chain, chosen.open_signer(Path(plan["key"])))
    connector.check()
    outbox = Outbox(Path(plan["outbox"]))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    for number in range(1, plan["records"] + 1):
        outbox.enqueue(
            RoundCall(
                task_id=plan["task_id"],
                round=number,
                attempt=1,
                manifest_digest=digest(number),
                updates_root=digest(number, 2),
            )
        )
    while outbox.pending():
        outbox.deliver(connector)
    print(time.monotonic() - started, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
