"""What travels in one exchange, as typed values; :mod:`.wire` turns them into Flower records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.records.fields import Address, Record
from twopm_flower.records.manifest import ExclusionReason, OpenedMetrics, RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    OpeningStatement,
    ReaderKey,
    Signed,
    UpdateStatement,
)

FloatArrays = dict[str, npt.NDArray[np.float32]]
Arrays = dict[str, npt.NDArray[Any]]
"""Of a whole model: excluded arrays may hold anything."""


@dataclass(frozen=True)
class SealedShare:
    """Node to server, and on to its reader: a share of the dealer's key.

    ``node`` is the reader on the way to the server and the dealer on the way from it;
    ``proof`` ties it to the dealer's signed root and is empty on the way to the server.
    """

    node: str
    sealed: bytes
    proof: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyOpening:
    """A node's share of the sum of the survivors' keys, sealed to the nodes, and signed."""

    statement: Signed[OpeningStatement]
    sealed: bytes


@dataclass(frozen=True)
class Opening:
    """All a node needs to open one round: what was listed, signed and summed.

    In ``one-time-key`` mode the opened shares as well, and the expanded frame of each survivor
    that vanished before it signed fingerprints, by its address.
    """

    manifest: RoundManifest
    updates: tuple[Signed[UpdateStatement], ...]
    fingerprints: tuple[Signed[FingerprintStatement], ...]
    aggregate: bytes
    keys: tuple[KeyOpening, ...] = ()
    ciphertexts: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class PrepareOrder:
    """Server to node, before the first round: publish a key for the shares of round 1."""

    task_id: str
    config: dict[str, Any]


@dataclass(frozen=True)
class PrepareReply:
    """Node to server: the key for the shares of round 1."""

    readers: tuple[Signed[ReaderKey], ...]


@dataclass(frozen=True)
class TrainOrder:
    """Server to node: open the last round, then train.

    ``initial`` is the public initial model, excluded arrays and all, for nodes that never
    saw it; ``openings`` are
    in the order of rounds and usually just the last one; ``readers`` are the keys that shares
    of this attempt's key are sealed to.
    """

    task_id: str
    round: int
    attempt: int
    config: dict[str, Any]
    initial: Arrays
    openings: tuple[Opening, ...] = ()
    readers: tuple[Signed[ReaderKey], ...] = ()


@dataclass(frozen=True)
class EvaluateOrder:
    """Server to node: check this round's manifest, sign fingerprints, evaluate.

    ``shares`` are those that the survivors sealed to the node this order goes to.
    """

    task_id: str
    config: dict[str, Any]
    manifest: RoundManifest
    updates: tuple[Signed[UpdateStatement], ...]
    shares: tuple[SealedShare, ...] = ()


@dataclass(frozen=True)
class CloseOrder:
    """Server to node: open the last round and evaluate its model."""

    task_id: str
    config: dict[str, Any]
    initial: Arrays
    openings: tuple[Opening, ...]


class ModelReport(Record):
    """Node to server: the model and the metric sums that it opened, signed.

    ``false_openings`` are the nodes whose opened shares do not fit the others': they lied, or a
    survivor dealt them wrong shares.
    """

    model: Signed[ModelStatement]
    metrics: OpenedMetrics
    false_openings: tuple[Address, ...] = ()


@dataclass(frozen=True)
class TrainReply:
    """Node to server: the encrypted update, its statement, and what was opened before it."""

    frame: bytes
    update: Signed[UpdateStatement]
    reports: tuple[ModelReport, ...]
    shares: tuple[SealedShare, ...] = ()


@dataclass(frozen=True)
class EvaluateReply:
    """Node to server: fingerprints of the own update and the masked evaluation.

    In ``one-time-key`` mode also the opened share of the key sum, or the dealers whose shares
    could not be opened, and the keys for the shares of the attempts that may come next.
    """

    fingerprint: Signed[FingerprintStatement] | None
    evaluation: Signed[EvaluationStatement] | None
    reports: tuple[ModelReport, ...] = ()
    key: KeyOpening | None = None
    bad_dealers: tuple[str, ...] = ()
    readers: tuple[Signed[ReaderKey], ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came back from one Flower node: a parsed reply, or why there is none.

    ``behind`` is the last round that a node opened which asks for older openings.
    """

    flower_node: int
    value: PrepareReply | TrainReply | EvaluateReply | None
    reason: ExclusionReason = "error"
    detail: str = ""
    behind: int | None = None
