"""Masked evaluations on the server: which belong to an exchange, and what they add up to."""

import logging
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import RecordError, VerificationError
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.masking import unmask_sum
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import EvaluationStatement, Signed
from twopm_flower.verify.outcome_steps import check_evaluation_sums

log = logging.getLogger(__name__)
Evaluations = tuple[Signed[EvaluationStatement], ...]


class Evaluator:
    """Collects the evaluations of one exchange.

    Parameters
    ----------
    task : TaskContext
        The task.
    manifest : RoundManifest
        Whose survivors' masks cancel.
    model_round : int
        The round whose model is evaluated.
    closing : bool
        Whether this is the exchange after the last round.
    """

    def __init__(
        self, task: TaskContext, manifest: RoundManifest, *, model_round: int, closing: bool
    ) -> None:
        self._task = task
        self._manifest = manifest
        self._model_round = model_round
        self._closing = closing
        self._taken: dict[str, Signed[EvaluationStatement]] = {}

    def take(self, signed: Signed[EvaluationStatement] | None) -> None:
        """Keep an evaluation of a survivor.

        Raises
        ------
        RecordError
            Not signed, or for another exchange.
        """
        if signed is None:
            return
        statement = signed.check(self._task.domain)
        bound = (
            statement.task_id,
            statement.manifest_digest,
            statement.model_round,
            statement.closing,
            len(statement.masked),
        )
        declared = len(self._task.terms.evaluation_metrics)
        expected = (
            self._task.task_id,
            self._manifest.digest,
            self._model_round,
            self._closing,
            declared,
        )
        if bound != expected:
            raise RecordError(f"{signed.node} signed an evaluation for another exchange")
        if signed.node in self._manifest.nodes:
            self._taken[signed.node] = signed

    def complete(self) -> Evaluations:
        """Return the evaluations if all are there and their sums are possible, else none."""
        nodes = self._manifest.nodes
        if set(self._taken) != set(nodes):
            return ()
        statements = tuple(self._taken[node] for node in nodes)
        try:
            check_evaluation_sums(
                self._task.terms.evaluation_metrics,
                statements,
                where=f"evaluation of model {self._model_round}",
            )
        except VerificationError as error:
            log.warning("ALARM: %s; a node evaluated dishonestly, the sums are dropped", error)
            return ()
        return statements


def evaluation_sums(task: TaskContext, statements: Evaluations) -> Mapping[str, float] | None:
    """Return the sums of masked evaluations in their own units; None where there are none."""
    if not statements:
        return None
    totals = unmask_sum([_words(signed.statement.masked) for signed in statements])
    declared = task.terms.evaluation_metrics
    return {
        metric.name: total / metric.scale for metric, total in zip(declared, totals, strict=True)
    }


def _words(masked: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    return np.array(masked, dtype=np.uint64)
