"""What travels in one exchange, as typed values; :mod:`.wire` turns them into Flower records."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.records.fields import Record
from twopm_flower.records.manifest import OpenedMetrics, RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    Signed,
    UpdateStatement,
)

FloatArrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Opening:
    """All a node needs to open one round: what was listed, signed and summed."""

    manifest: RoundManifest
    updates: tuple[Signed[UpdateStatement], ...]
    fingerprints: tuple[Signed[FingerprintStatement], ...]
    aggregate: bytes


@dataclass(frozen=True)
class TrainOrder:
    """Server to node: open the last round, then train.

    ``initial`` is the public initial model, for nodes that never saw it; ``openings`` are
    in the order of rounds and usually just the last one.
    """

    task_id: str
    round: int
    attempt: int
    config: dict[str, Any]
    initial: FloatArrays
    openings: tuple[Opening, ...] = ()


@dataclass(frozen=True)
class EvaluateOrder:
    """Server to node: check this round's manifest, sign fingerprints, evaluate."""

    task_id: str
    config: dict[str, Any]
    manifest: RoundManifest
    updates: tuple[Signed[UpdateStatement], ...]


@dataclass(frozen=True)
class CloseOrder:
    """Server to node: open the last round and evaluate its model."""

    task_id: str
    config: dict[str, Any]
    initial: FloatArrays
    openings: tuple[Opening, ...]


class ModelReport(Record):
    """Node to server: the model and the metric sums that it opened, signed."""

    model: Signed[ModelStatement]
    metrics: OpenedMetrics


@dataclass(frozen=True)
class TrainReply:
    """Node to server: the encrypted update, its statement, and what was opened before it."""

    frame: bytes
    update: Signed[UpdateStatement]
    reports: tuple[ModelReport, ...]


@dataclass(frozen=True)
class EvaluateReply:
    """Node to server: fingerprints of the own update and the masked evaluation."""

    fingerprint: Signed[FingerprintStatement] | None
    evaluation: Signed[EvaluationStatement] | None
    reports: tuple[ModelReport, ...] = ()
