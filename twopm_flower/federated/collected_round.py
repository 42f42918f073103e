"""What the server collects about one round: the sum, the signatures, the reports."""

from collections import Counter
from dataclasses import dataclass, field, replace

from twopm_flower.federated.aggregator import Aggregate
from twopm_flower.federated.exchange import ModelReport, Opening
from twopm_flower.records.bundle import RoundBundle, SupersededAttempt
from twopm_flower.records.manifest import OpenedMetrics
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    Signed,
)


@dataclass
class CollectedRound:
    """What is collected about one round while it runs, and until its model is signed."""

    aggregate: Aggregate
    fingerprints: tuple[Signed[FingerprintStatement], ...] = ()
    superseded: tuple[SupersededAttempt, ...] = ()
    evaluations: tuple[Signed[EvaluationStatement], ...] = ()
    reports: dict[str, ModelReport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.statements = tuple(update.statement for update in self.aggregate.updates)

    def release_ciphertexts(self) -> None:
        """Forget the updates themselves: from here on their sum and digests are enough."""
        self.aggregate = replace(self.aggregate, updates=())

    def opening(self) -> Opening:
        """Return what nodes need to open this round."""
        return Opening(
            manifest=self.aggregate.manifest,
            updates=self.statements,
            fingerprints=self.fingerprints,
            aggregate=self.aggregate.frame,
        )

    def agreed(self) -> tuple[ModelStatement, OpenedMetrics] | None:
        """Return the model that most nodes report, with its metric sums."""
        count = Counter(report.model.statement for report in self.reports.values())
        if not count:
            return None
        statement = count.most_common(1)[0][0]
        metrics = next(r.metrics for r in self.reports.values() if r.model.statement == statement)
        return statement, metrics

    def supporters(self, statement: ModelStatement) -> tuple[ModelReport, ...]:
        """Return the reports of one model, sorted by node."""
        chosen = [r for r in self.reports.values() if r.model.statement == statement]
        return tuple(sorted(chosen, key=lambda report: report.model.node.lower()))

    def bundle(self) -> RoundBundle:
        """Return the round as it stands in the public bundle, without its chain record."""
        agreed = self.agreed()
        reports = self.supporters(agreed[0]) if agreed else ()
        return RoundBundle(
            manifest=self.aggregate.manifest,
            superseded=self.superseded,
            updates=self.statements,
            fingerprints=self.fingerprints,
            openings=(),
            evaluations=self.evaluations,
            models=tuple(report.model for report in reports),
            metrics=agreed[1] if agreed else None,
            record=None,
        )
