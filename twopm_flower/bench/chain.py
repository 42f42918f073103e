"""``twopm bench chain``: what it takes to get a round onto each kind of chain."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from twopm_flower.bench.chain_report import ChainFigures, ChainReport, RoundWork, SignerFigures
from twopm_flower.bench.chain_task import digest, registered_nodes, running_task
from twopm_flower.bench.machine import this_machine
from twopm_flower.bench.progress import Progress
from twopm_flower.bench.signing import time_signers
from twopm_flower.chain.backends import LocalChain, backend
from twopm_flower.chain.base import ChainConnector, RoundCall
from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_worker import OutboxWorker
from twopm_flower.config import ChainSettings
from twopm_flower.errors import BenchmarkError, ConfigError
from twopm_flower.node.chain_file import make_chain_settings
from twopm_flower.signer.keystore import LocalSigner

DELIVERY_LIMIT_S = 60.0


@dataclass(frozen=True)
class ChainOptions:
    """What is measured.

    Attributes
    ----------
    families : tuple of str
        Kinds of chain, each on a local chain of its own.
    rounds : int
        How many records are timed one by one.
    processes, records : int
        How many processes deliver at once, and how many records each.
    nodes : tuple of int
        Numbers of nodes at which the work of a record is measured.
    command : str
    """

    families: tuple[str, ...]
    rounds: int
    processes: int
    records: int
    nodes: tuple[int, ...]
    command: str


def run_chain(folder: Path, options: ChainOptions, progress: Progress) -> ChainReport:
    """Measure every kind of chain that is wanted, one after the other.

    Parameters
    ----------
    folder : Path
        An empty folder, for the chains and outboxes.
    options : ChainOptions
    progress : Progress

    Raises
    ------
    BenchmarkError
        A process that delivers records failed.
    """
    chains: list[ChainFigures] = []
    skipped: dict[str, str] = {}
    signer: SignerFigures | None = None
    steps = len(options.families) + 1
    for done, family in enumerate(options.families):
        progress.doing(f"{family}: starting a local chain", done, steps)
        try:
            local = backend(family).local_chain(folder / family)
        except ConfigError as error:
            skipped[family] = str(error)
            continue
        with local:
            chain = make_chain_settings(local.url, backend(family).deploy(local.url, local.signer))
            work = folder / f"{family}-work"
            chains.append(_measure(work, local, chain, options, progress))
        if family == "evm":
            progress.doing("signing in this process, and apart", len(chains), steps)
            signer = time_signers(folder / "signer", chain, 2 * options.rounds)
    return ChainReport(
        machine=this_machine(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        chains=tuple(chains),
        signer=signer,
        skipped=skipped,
    )


def _measure(
    folder: Path,
    local: LocalChain,
    chain: ChainSettings,
    options: ChainOptions,
    progress: Progress,
) -> ChainFigures:
    folder.mkdir()
    family = chain.family
    connector = backend(family).open_connector(chain, local.signer)
    progress.doing(f"{family}: work of a record against the number of nodes", 0, 1)
    nodes = registered_nodes(connector, max(options.nodes))
    work = tuple(_work(connector, dict(list(nodes.items())[:count])) for count in options.nodes)
    two = dict(list(nodes.items())[:2])
    progress.doing(f"{family}: latency of a record", 0, 1)
    latencies = _latencies(folder, connector, running_task(connector, two, options.rounds))
    progress.doing(f"{family}: {options.processes} processes deliver at once", 0, 1)
    tasks = [running_task(connector, two, options.records) for _ in range(options.processes)]
    seconds = _deliver_at_once(folder, chain, local, tasks, options.records)
    return ChainFigures(
        family=family,
        endpoint=connector.status().endpoint,
        latencies_s=latencies,
        throughput_per_s=options.processes * options.records / seconds,
        processes=options.processes,
        records=options.records,
        work=work,
    )


def _work(connector: ChainConnector, nodes: dict[str, LocalSigner]) -> RoundWork:
    task_id = running_task(connector, nodes, 2)
    first, later = (
        connector.record_round(task_id, number, 1, digest(number), digest(number, 2)).gas_used
        for number in (1, 2)
    )
    return RoundWork(nodes=len(nodes), first=first or 0, later=later or 0)


def _latencies(folder: Path, connector: ChainConnector, task_id: str) -> tuple[float, ...]:
    taken = []
    with OutboxWorker(Outbox(folder / "latency.sqlite"), connector) as worker:
        for number in range(1, connector.task(task_id).rounds + 1):
            call = RoundCall(task_id, number, 1, digest(number), digest(number, 2))
            started = time.monotonic()
            worker.enqueue(call)
            worker.flush(DELIVERY_LIMIT_S)
            taken.append(time.monotonic() - started)
    return tuple(taken)


def _deliver_at_once(
    folder: Path,
    chain: ChainSettings,
    local: LocalChain,
    tasks: Sequence[str],
    records: int,
) -> float:
    with ExitStack() as stack:
        processes = []
        for number, task_id in enumerate(tasks):
            plan = {
                "chain": chain.model_dump(mode="json"),
                "key": str(local.folder / "account.key"),
                "outbox": str(folder / f"load-{number}.sqlite"),
                "task_id": task_id,
                "records": records,
            }
            process = subprocess.Popen(  # our own interpreter and module
                [sys.executable, "-P", "-m", "twopm_flower.bench.chain_load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, process)
            _say(process, json.dumps(plan))
            processes.append(process)
        for process in processes:
            _hear(process)
        started = time.monotonic()
        for process in processes:
            _say(process, "go")
        for process in processes:
            _hear(process)
        return time.monotonic() - started


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(line + "\n")
        process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise BenchmarkError("a process that delivers records ended early; its words are above")
    return line
