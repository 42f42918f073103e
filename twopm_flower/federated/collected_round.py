"""What the server collects about one round: the sum, the signatures, the reports."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from twopm_flower.federated.aggregator import Aggregate
from twopm_flower.federated.exchange import KeyOpening, ModelReport, Opening
from twopm_flower.federated.task import TaskContext
from twopm_flower.records.bundle import RoundBundle, SupersededAttempt
from twopm_flower.records.manifest import OpenedMetrics
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    Signed,
)
from twopm_flower.verify.expanded import encode_expanded


@dataclass
class CollectedRound:
    """What is collected about one round while it runs, and until its model is signed."""

    aggregate: Aggregate
    fingerprints: tuple[Signed[FingerprintStatement], ...] = ()
    superseded: tuple[SupersededAttempt, ...] = ()
    evaluations: tuple[Signed[EvaluationStatement], ...] = ()
    reports: dict[str, ModelReport] = field(default_factory=dict)
    keys: dict[str, KeyOpening] = field(default_factory=dict)
    ciphertexts: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.statements = tuple(update.statement for update in self.aggregate.updates)

    def keep_ciphertexts(self, nodes: Iterable[str], task: TaskContext) -> None:
        """Keep the frames of survivors that vanished: public where keys are shared out."""
        manifest = self.aggregate.manifest
        for update in self.aggregate.updates:
            node = update.statement.node
            if node in nodes:
                self.ciphertexts[node] = encode_expanded(
                    task.frame(manifest.round, manifest.attempt, node),
                    update.ciphertext,
                    task.parameters.backend,
                )

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
            keys=self._sorted_keys(),
            ciphertexts=self.ciphertexts,
        )

    def _sorted_keys(self) -> tuple[KeyOpening, ...]:
        return tuple(self.keys[node] for node in sorted(self.keys, key=str.lower))

    def public_ciphertexts(self) -> dict[str, bytes]:
        """Return the kept frames by the digests that the survivors signed."""
        digests = {s.node: s.update_digest for s in self.aggregate.manifest.survivors}
        return {digests[node]: frame for node, frame in self.ciphertexts.items()}

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
            openings=tuple(key.statement for key in self._sorted_keys()),
            evaluations=self.evaluations,
            models=tuple(report.model for report in reports),
            metrics=agreed[1] if agreed else None,
            record=None,
        )
