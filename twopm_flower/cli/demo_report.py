"""How the demo's outcome looks: a table of rounds, a comparison, who could read what."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from twopm_flower.cli.demo_comparison import Comparison, Score
from twopm_flower.cli.demo_story import DemoResult
from twopm_flower.cli.output import plain, work_name
from twopm_flower.records.bundle import ChainRecord
from twopm_flower.verify import ModelMetrics

TRUST = {
    "shared-key": (
        "shared-key: the server adds ciphertexts and holds no key. The nodes share one key: "
        "a node that gets hold of another's ciphertext can read it, so the server together "
        "with any one node could read every update. The public sees sums only."
    ),
    "one-time-key": (
        "one-time-key: each node encrypts with a fresh key of its own in every round, and the "
        "nodes open the sum of the keys only. {colluders} of them together with the server "
        "learn no other node's update; more could, if they are among those who open."
    ),
    "plaintext": (
        "plaintext: NOTHING IS ENCRYPTED. The server reads every node's update. "
        "This mode is for comparison only."
    ),
}


# As many digits as the demo's other lines show.
_TASK_PREFIX = 10


def rounds_json(result: DemoResult) -> list[dict[str, Any]]:
    """Return one entry per round, for programs."""
    uploads = {timing.round: timing.upload_bytes for timing in result.timings.rounds}
    evaluated = {entry.model_round: entry for entry in result.report.metrics}
    rows = []
    for entry in result.bundle.rounds:
        manifest, record = entry.manifest, entry.record
        score = _score(evaluated.get(manifest.round))
        rows.append(
            {
                "round": manifest.round,
                "attempt": manifest.attempt,
                "nodes": len(manifest.survivors),
                "accuracy": None if score is None else round(score.accuracy, 4),
                "loss": None if score is None else round(score.loss, 4),
                "upload_bytes": max(uploads.get(manifest.round, {"": 0}).values()),
                "gas": None if record is None else record.gas_used,
                "transaction": None if record is None else record.transaction_hash,
                "verified": result.report.exit_code == 0,
            }
        )
    return rows


def to_json(result: DemoResult) -> dict[str, Any]:
    """Return the outcome for programs."""
    comparison = result.comparison
    return {
        "data": result.label,
        "synthetic": result.synthetic,
        "task_id": result.bundle.task_id,
        "trust_mode": result.bundle.terms.trust_mode,
        "engine": "simulation" if result.options.simulation else "deployment",
        "verified": result.report.exit_code == 0,
        "rounds": rounds_json(result),
        "comparison": None
        if comparison is None
        else {
            name: {"accuracy": round(score.accuracy, 4), "loss": round(score.loss, 4)}
            for name, score in _scores(comparison).items()
        }
        | {"rows": comparison.federated.rows, "identical_to_plaintext": comparison.identical},
        "verification": result.report.to_json(),
        "bundle": str(result.bundle_path),
        "coordinator": str(result.coordinator),
        "next": " ".join(next_command(result)),
        "seconds": result.seconds,
    }


def render(result: DemoResult) -> RenderableType:
    """Return the outcome for people, in at most 80 columns."""
    parts: list[RenderableType] = ["", _rounds(result)]
    if result.comparison is not None:
        parts += ["", _comparison(result.comparison, result.bundle.terms.trust_mode)]
    parts += ["", _trust(result)]
    return Group(*parts)


def next_steps(result: DemoResult) -> str:
    """Return where everything is and what to try next, as rich markup.

    Only a path of its own may be longer than 80 columns; the command stands on two lines that
    a shell reads as one.
    """
    total = sum(result.seconds.values())
    home, words = next_command(result)
    return (
        f"\nDone in {total:.0f} s; nothing is left running.\n"
        f"[bold]Bundle[/]\n  {plain(result.bundle_path)}\n"
        f"[bold]Next[/]\n  {plain(home)} \\\n  {plain(words)}"
    )


def next_command(result: DemoResult) -> tuple[str, str]:
    """Return the command that checks this run again: its environment, and its words."""
    task = result.bundle.task_id[:_TASK_PREFIX]
    words = [*this_program(), "verify", task, "--require", "re-executed"]
    return f"TWOPM_HOME={shlex.quote(str(result.coordinator))}", shlex.join(words)


def this_program() -> list[str]:
    """Return the words that start this installation's ``twopm`` from the current folder."""
    script = Path(sys.executable).with_name("twopm")
    if not script.exists():
        return [sys.executable, "-m", "twopm_flower.cli"]
    on_path = shutil.which("twopm")
    if on_path is not None and Path(on_path).samefile(script):
        return ["twopm"]
    relative = os.path.relpath(script)
    if os.sep not in relative:
        # A bare name would be looked up on the PATH.
        relative = f".{os.sep}{relative}"
    return [min(str(script), relative, key=len)]


def _rounds(result: DemoResult) -> Table:
    title = f"[bold]{plain(result.label)}[/], set-up {plain(result.options.setup)}"
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    work = work_name(result.bundle.deployment.family)
    counted = [] if work is None else [work.capitalize()]
    for name in ("Round", "Nodes", "Accuracy", "Loss", "Upload", *counted):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Transaction", no_wrap=True)
    table.add_column("Verified", justify="center")
    evaluated = {entry.model_round: entry for entry in result.report.metrics}
    records: dict[int, ChainRecord | None] = {
        entry.manifest.round: entry.record for entry in result.bundle.rounds
    }
    for row in rounds_json(result):
        score = _score(evaluated.get(row["round"]))
        record = records[row["round"]]
        table.add_row(
            str(row["round"]),
            str(row["nodes"]),
            "-" if score is None else f"{score.accuracy:.1%}",
            "-" if score is None else f"{score.loss:.4f}",
            f"{row['upload_bytes'] / 1000:.1f} kB",
            *(["-" if record is None else f"{record.gas_used:,}"] if counted else []),
            "not on chain" if record is None else _short(record.transaction_hash),
            "[green]✓[/]" if row["verified"] else "[red]✗[/]",
        )
    table.caption = "Accuracy and loss on held-out rows, opened as sums. Upload: one node."
    table.caption_justify = "left"
    return table


def _comparison(comparison: Comparison, trust_mode: str) -> Table:
    rows = comparison.federated.rows
    table = Table(
        title=f"[bold]The same split in three ways[/] ({rows} held-out rows)",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("Training")
    for name in ("Accuracy", "Loss"):
        table.add_column(name, justify="right")
    own = "federated, this run" if trust_mode == "plaintext" else "federated, encrypted"
    equal = "equal bit for bit" if comparison.identical else "NOT EQUAL"
    names = (own, f"federated, plaintext ({equal})", "centralised regression")
    for name, score in zip(names, _scores(comparison).values(), strict=True):
        table.add_row(name, f"{score.accuracy:.1%}", f"{score.loss:.4f}")
    return table


def _trust(result: DemoResult) -> Panel:
    terms = result.bundle.terms
    text = TRUST[terms.trust_mode].format(colluders=terms.colluders)
    if result.options.simulation:
        text += " All roles, keys included, ran on this one machine."
    else:
        text += " Here all homes are on this one machine, each with keys of its own."
    if result.synthetic:
        text = f"SYNTHETIC DATA: the students are made up, and so is every result.\n{text}"
    style = "red" if terms.trust_mode == "plaintext" else "cyan"
    return Panel(Text(text), title="Who could read what", style=style, width=80)


def _scores(comparison: Comparison) -> dict[str, Score]:
    return {
        "federated": comparison.federated,
        "plaintext": comparison.plaintext,
        "centralised": comparison.centralised,
    }


def _score(entry: ModelMetrics | None) -> Score | None:
    if entry is None or not entry.evaluation:
        return None
    rows = int(entry.evaluation["num-examples"])
    return Score(int(entry.evaluation["correct"]), rows, entry.evaluation["loss"] / rows)


def _short(digest: str) -> str:
    return f"{digest[:6]}…{digest[-4:]}"
