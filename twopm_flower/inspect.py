"""Rounds and updates of a run as pandas data frames, and a plot of how the model learnt."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from twopm_flower.errors import ConfigError
from twopm_flower.federated.run_store import Timings
from twopm_flower.privacy.ciphertext import SEED_BYTES
from twopm_flower.privacy.frame import RESIDUE_BYTES, UPDATE_HEADER_BYTES
from twopm_flower.privacy.layout import layout_of
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.records.bundle import RoundBundle, RunBundle
from twopm_flower.records.statements import EvaluationStatement, Signed
from twopm_flower.records.terms import MetricTerm, TaskTerms
from twopm_flower.verify.checklist import load_bundle
from twopm_flower.verify.outcome_steps import unmasked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["is_synthetic", "load_bundle", "plot_rounds", "rounds", "update_bytes", "updates"]

_ACCURACY, _LOSS, _MUTED = "#1b6ca8", "#c8553d", "#5f6b76"


def rounds(bundle: RunBundle, timings: Timings | None = None) -> pd.DataFrame:
    """Return one row per round.

    Parameters
    ----------
    bundle : RunBundle
    timings : Timings, optional
        Measured figures of the coordinator; adds the columns ``train_s`` and ``evaluate_s``.

    Returns
    -------
    pandas.DataFrame
        ``round, attempt, contributors, excluded, samples``: as the manifest says;
        ``train_accuracy, train_loss``: of the nodes' own models on their training rows, NaN in
        a round that took more than one attempt, for nodes then send zeros;
        ``accuracy, loss, evaluated_rows``: of the round's model on held-out rows, NaN where
        the sums were not opened; ``upload_bytes``: of one node; ``gas, block, transaction``:
        of the record, missing while there is none (``gas`` is in compute units on Solana, and
        0 on a ledger); ``model, manifest``: digests.

    Examples
    --------
    >>> rounds(load_bundle("bundle.json"))[["round", "accuracy", "loss"]]  # doctest: +SKIP
    """
    last = len(bundle.rounds)
    measured = {entry.round: entry for entry in timings.rounds} if timings else {}
    rows = []
    for index, entry in enumerate(bundle.rounds, start=1):
        manifest, record = entry.manifest, entry.record
        # The model of a round is evaluated in the exchange after it.
        exchange = bundle.rounds[index] if index < last else entry
        statements = exchange.evaluations if index < last else bundle.closing
        row: dict[str, Any] = {
            "round": manifest.round,
            "attempt": manifest.attempt,
            "contributors": len(manifest.survivors),
            "excluded": len(manifest.exclusions),
            "samples": manifest.samples,
            **_training(bundle.terms, entry),
            **_evaluation(bundle.terms.evaluation_metrics, exchange, statements),
            "upload_bytes": update_bytes(bundle.terms),
            "gas": None if record is None else record.gas_used,
            "block": None if record is None else record.block_number,
            "transaction": None if record is None else record.transaction_hash,
            "model": entry.models[0].statement.model_digest if entry.models else None,
            "manifest": manifest.digest,
        }
        if manifest.round in measured:
            timing = measured[manifest.round]
            row |= {"train_s": timing.train_s, "evaluate_s": timing.evaluate_s}
        rows.append(row)
    return pd.DataFrame(rows).astype({"gas": "Int64", "block": "Int64"})


def updates(bundle: RunBundle) -> pd.DataFrame:
    """Return one row per member and round.

    Returns
    -------
    pandas.DataFrame
        ``round, attempt, node, samples``; ``status``: ``added``, or the reason for which the
        update was left out; ``detail``; ``update``: its digest.
    """
    rows: list[dict[str, Any]] = []
    for entry in bundle.rounds:
        manifest = entry.manifest
        place = {"round": manifest.round, "attempt": manifest.attempt}
        for survivor in manifest.survivors:
            samples = bundle.roster.member(survivor.node).samples
            rows.append(
                {
                    **place,
                    "node": survivor.node,
                    "samples": samples,
                    "status": "added",
                    "detail": "",
                    "update": survivor.update_digest,
                }
            )
        for exclusion in manifest.exclusions:
            samples = bundle.roster.member(exclusion.node).samples
            rows.append(
                {
                    **place,
                    "node": exclusion.node,
                    "samples": samples,
                    "status": exclusion.reason,
                    "detail": exclusion.detail,
                    "update": None,
                }
            )
    return pd.DataFrame(rows)


def plot_rounds(bundle: RunBundle, *, data_label: str = "") -> "Figure":
    """Return a figure of accuracy and loss on held-out rows after each round.

    Says SYNTHETIC where the rows are made up, and PLAINTEXT where nothing was encrypted.

    Parameters
    ----------
    bundle : RunBundle
    data_label : str
        What the data are called, where the reader knows more than the task's terms say.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed",
            hint="pip install 'twopm-flower[notebooks]'",
        ) from error
    table = rounds(bundle)
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, column, colour in ((left, "accuracy", _ACCURACY), (right, "loss", _LOSS)):
        axes.plot(table["round"], table[column], marker="o", color=colour, linewidth=2)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        known = table[table[column].notna()]
        if len(known):
            final = known.iloc[-1]
            text = f"{final[column]:.1%}" if column == "accuracy" else f"{final[column]:.3f}"
            axes.annotate(
                text,
                (final["round"], final[column]),
                textcoords="offset points",
                xytext=(-4, 8 if column == "accuracy" else 10),
                ha="right",
                color=colour,
                weight="bold",
            )
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.set_title("Accuracy on held-out rows", loc="left", fontsize=10)
    right.set_title("Loss on held-out rows (nats)", loc="left", fontsize=10)
    # A title is another party's text: a dollar sign in it is no formula.
    figure.suptitle(
        _caption(bundle, data_label),
        fontsize=11,
        x=0.01,
        ha="left",
        color=_MUTED,
        parse_math=False,
    )
    return figure


def is_synthetic(terms: TaskTerms) -> bool:
    """Return whether a task allows made-up rows; its results say nothing about the world."""
    label = str(terms.dataset.get("label", ""))
    return bool(terms.dataset.get("synthetic")) or "SYNTHETIC" in label


def update_bytes(terms: TaskTerms) -> int:
    """Return the size of the frame that one node sends in a round, in bytes."""
    parameters = AdditiveParameters.from_dict(terms.parameters)
    size = layout_of(terms).size
    body = parameters.rows(size) * SEED_BYTES + parameters.wire_coefficients(size) * RESIDUE_BYTES
    return UPDATE_HEADER_BYTES + body


def _training(terms: TaskTerms, entry: RoundBundle) -> dict[str, float]:
    scales = {term.name: term.scale for term in terms.train_metrics}
    sent = entry.metrics is not None and entry.manifest.attempt == 1
    sums: Mapping[str, int] = entry.metrics.sums if entry.metrics and sent else {}
    means = {n: value / scales[n] / entry.manifest.samples for n, value in sums.items()}
    return {
        "train_accuracy": means.get("correct", np.nan),
        "train_loss": means.get("loss", np.nan),
    }


def _evaluation(
    terms: Sequence[MetricTerm],
    exchange: RoundBundle,
    statements: Sequence[Signed[EvaluationStatement]],
) -> dict[str, float]:
    nothing = {"accuracy": np.nan, "loss": np.nan, "evaluated_rows": np.nan}
    # One mask is left over for each survivor that is missing: the sum then means nothing.
    if {signed.node for signed in statements} != set(exchange.manifest.nodes) or not terms:
        return nothing
    scales = {term.name: term.scale for term in terms}
    sums = {name: value / scales[name] for name, value in unmasked(terms, statements).items()}
    count = sums.get("num-examples", 0.0)
    if count <= 0:
        return nothing
    return {
        "accuracy": sums["correct"] / count if "correct" in sums else np.nan,
        "loss": sums["loss"] / count if "loss" in sums else np.nan,
        "evaluated_rows": count,
    }


def _caption(bundle: RunBundle, data_label: str) -> str:
    words = [bundle.terms.title.replace("SYNTHETIC ", "")]
    if data_label:
        words.append(data_label.replace("SYNTHETIC ", ""))
    if is_synthetic(bundle.terms) or "SYNTHETIC" in data_label:
        words.insert(0, "SYNTHETIC DATA")
    if bundle.terms.trust_mode == "plaintext":
        words.append("PLAINTEXT")
    else:
        words.append(f"encrypted ({bundle.terms.trust_mode})")
    return " · ".join(words)
