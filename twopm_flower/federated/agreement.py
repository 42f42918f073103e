"""Which model the nodes agree on: their signed reports, and the base of the next round."""

import logging
from collections.abc import Iterable, Sequence

from twopm_flower.errors import QuorumError, RecordError
from twopm_flower.federated.collected_round import CollectedRound
from twopm_flower.federated.exchange import EvaluateReply, ModelReport, Reply, TrainReply
from twopm_flower.federated.task import TaskContext
from twopm_flower.records.digest import ZERO_DIGEST

log = logging.getLogger(__name__)


def collect_reports(task: TaskContext, entry: CollectedRound, replies: Iterable[Reply]) -> None:
    """Keep the members' signed reports of what they opened in a round; the first one counts."""
    manifest = entry.aggregate.manifest
    # A node reports the round last; one report of a reply is looked at.
    for report in (report for reply in replies for report in _reports_in(reply)[-1:]):
        statement = report.model.statement
        bound = (statement.task_id, statement.round, statement.manifest_digest)
        if bound != (manifest.task_id, manifest.round, manifest.digest):
            continue
        if report.model.node in entry.reports:
            continue
        try:
            report.model.check(task.domain)
        except RecordError as error:
            log.warning("model statement of %s: %s", report.model.node, error)
            continue
        member = report.model.node in task.roster.nodes
        if not member or report.metrics.digest != statement.metrics_digest:
            continue
        entry.reports.setdefault(report.model.node, report)
        if report.false_openings:
            log.error(
                "ALARM: round %d: %s found that the shares opened by %s do not fit",
                manifest.round,
                report.model.node,
                ", ".join(report.false_openings[: len(task.roster.members)]),
            )


def agreed_base(task: TaskContext, rounds: Sequence[CollectedRound]) -> tuple[str, str]:
    """Return the digests of the model and of the manifest that the next round starts from.

    Raises
    ------
    QuorumError
        No quorum signed one model of the last round.
    """
    if not rounds:
        return task.terms.initial_model, ZERO_DIGEST
    entry = rounds[-1]
    manifest = entry.aggregate.manifest
    agreed, support = entry.agreed(), _support(entry)
    if agreed is None or support < task.terms.quorum:
        raise QuorumError(
            f"round {manifest.round}: {support} nodes signed the same model, "
            f"{task.terms.quorum} are needed",
            hint="Look at the nodes' logs: a node that stops says why.",
        )
    if support < len(entry.reports):
        log.error(
            "ALARM: %d nodes opened another model in round %d",
            len(entry.reports) - support,
            manifest.round,
        )
    return agreed[0].model_digest, manifest.digest


def raise_if_impossible(task: TaskContext, entry: CollectedRound, members: Iterable[Reply]) -> None:
    """Stop where members say that a sum opens to what honest nodes cannot have added up to.

    Raises
    ------
    QuorumError
        They do, and no quorum opened the round.
    """
    told = [reply for reply in members if reply.detail.startswith("ImpossibleSum")]
    if told and _support(entry) < task.terms.quorum:
        raise QuorumError(
            f"round {entry.aggregate.manifest.round}: {len(told)} nodes say that the sum opens "
            "to what honest nodes cannot have added up to: a contributor is dishonest, nobody "
            "can tell which",
            hint="Cancel the task ('twopm task cancel') and make another with other members.",
        )


def _support(entry: CollectedRound) -> int:
    agreed = entry.agreed()
    return len(entry.supporters(agreed[0])) if agreed else 0


def _reports_in(reply: Reply) -> tuple[ModelReport, ...]:
    return reply.value.reports if isinstance(reply.value, TrainReply | EvaluateReply) else ()
