"""Building the terms of a task: from a model and settings, or for the student showcase."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twopm_flower.datasets import FeatureEncoder, schema
from twopm_flower.errors import ConfigError
from twopm_flower.models.logistic_regression import DEFAULTS, LogisticRegression
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.parameters import AdditiveParameters, BackendName
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.terms import ArrayTerm, MetricTerm, TaskTerms, TrustMode, model_digest

FloatArrays = dict[str, npt.NDArray[np.float32]]

LARGEST_MEAN_LOSS: Final = 16.0
"""Nats per row; a logistic loss beyond means a probability of one in nine million."""
EVALUATION_SCALE: Final = 2**16
_BACKENDS: Final[dict[str, BackendName]] = {"shared-key": "bfv", "plaintext": "plaintext"}


@dataclass(frozen=True)
class TaskSettings:
    """What a coordinator decides about any task.

    Attributes
    ----------
    title : str
        For people.
    rounds : int
        Planned rounds.
    trust_mode : {"shared-key", "plaintext"}
        Who could read an update; see SECURITY.md.
    min_contributors : int
        Fewest updates in an aggregate that a node opens.
    quorum : int or None
        Fewest equal model statements; a majority of `min_contributors` by default.
    max_nodes : int
        Most members; headroom of the encrypted sum is reserved for as many.
    max_samples : int
        Most training rows of one node.
    clip : float
        Largest absolute value of one coordinate of an update.
    fields : int
        Values packed into one coefficient of a ciphertext.
    """

    title: str = "task"
    rounds: int = DEFAULTS.rounds
    trust_mode: TrustMode = "shared-key"
    min_contributors: int = 3
    quorum: int | None = None
    max_nodes: int = 10
    max_samples: int = 1000
    clip: float = DEFAULTS.clip
    fields: int = 2


@dataclass(frozen=True)
class StudentSettings:
    """What a coordinator decides about a task on the student data.

    Attributes
    ----------
    subject, setup, target : str
        See :mod:`twopm_flower.datasets`.
    partition, partition_seed : str, int
        How one file is divided where several nodes share it.
    holdout, holdout_seed : float, int
        The share of its rows that each node keeps for evaluation.
    epochs, batch_size, lr, l2, proximal_mu, seed
        Local training.
    """

    subject: str = "mat"
    setup: str = "A"
    target: str = "pass"
    partition: str = "iid"
    partition_seed: int = 0
    holdout: float = 0.2
    holdout_seed: int = 0
    epochs: int = DEFAULTS.epochs
    batch_size: int = DEFAULTS.batch_size
    lr: float = DEFAULTS.lr
    l2: float = DEFAULTS.l2
    proximal_mu: float = DEFAULTS.proximal_mu
    seed: int = 0


@dataclass(frozen=True)
class AppSettings:
    """What the Flower app of a task is, and what the server may tell it.

    Attributes
    ----------
    bundle : str
        Digest of the unpacked app.
    run_config : dict
        The Flower run configuration.
    train_config, evaluate_config : dict
        Hyperparameters in train and evaluate messages, without ``server-round``.
    """

    bundle: str
    run_config: dict[str, Any] = field(default_factory=dict)
    train_config: dict[str, Any] = field(default_factory=dict)
    evaluate_config: dict[str, Any] = field(default_factory=dict)


def build_terms(
    settings: TaskSettings,
    app: AppSettings,
    initial: Mapping[str, npt.NDArray[np.float32]],
    dataset: Mapping[str, Any],
) -> TaskTerms:
    """Return the terms of a task.

    Parameters
    ----------
    settings : TaskSettings
    app : AppSettings
    initial : mapping of str to ndarray of float32
        The public initial model; its order is the order of the arrays in an update.
    dataset : mapping
        Which data, for people and for the joining node; JSON values.

    Raises
    ------
    ConfigError
        The trust mode is unknown or not available, numbers contradict each other, or the
        encrypted sum has no room for the metrics.
    """
    parameters = _parameters(settings)
    quorum = settings.quorum or settings.min_contributors // 2 + 1
    if not 2 <= settings.min_contributors <= settings.max_nodes:
        raise ConfigError(
            f"min_contributors is {settings.min_contributors}; it goes from 2 to "
            f"max_nodes = {settings.max_nodes}",
            hint="With two contributors each learns the other's update by subtraction: use 3.",
        )
    if not 1 <= quorum <= settings.min_contributors:
        raise ConfigError(
            f"quorum is {quorum}; it goes from 1 to min_contributors = {settings.min_contributors}"
        )
    train_metrics = _train_metrics(settings.max_samples, parameters.limit)
    layout = Layout.of(
        initial, tuple(Metric(term.name, term.scale, term.maximum) for term in train_metrics)
    )
    return TaskTerms.from_json(
        {
            "title": settings.title,
            "trust_mode": settings.trust_mode,
            "rounds": settings.rounds,
            "min_contributors": settings.min_contributors,
            "quorum": quorum,
            "max_samples": settings.max_samples,
            "clip": settings.clip,
            "parameters": parameters.to_dict(),
            "parameters_id": parameters.identifier,
            "arrays": [ArrayTerm(name=n, shape=s).to_json() for n, s in layout.arrays],
            "train_metrics": [term.to_json() for term in train_metrics],
            "evaluation_metrics": [
                term.to_json() for term in _evaluation_metrics(settings.max_samples)
            ],
            "layout_digest": layout.digest,
            "initial_model": initial_model_digest(layout, initial),
            "train_config": app.train_config,
            "evaluate_config": app.evaluate_config,
            "run_config": app.run_config,
            "app_bundle": app.bundle,
            "dataset": dict(dataset),
        }
    )


def build_student_terms(
    settings: TaskSettings,
    students: StudentSettings,
    *,
    app_bundle: str,
    run_config: Mapping[str, Any] | None = None,
) -> tuple[TaskTerms, FloatArrays]:
    """Return the terms of the showcase, and its initial model.

    Parameters
    ----------
    settings : TaskSettings
    students : StudentSettings
    app_bundle : str
        Digest of the unpacked Flower app.
    run_config : mapping, optional
        The Flower run configuration.

    Raises
    ------
    ConfigError
        See :func:`build_terms`.
    DataError
        An unknown subject, set-up or target.
    """
    schema.published_file(students.subject)
    encoder = FeatureEncoder(students.setup, students.target)
    model = LogisticRegression(encoder.n_features)
    initial = model.initial(students.seed)
    train_config: dict[str, Any] = {
        "epochs": students.epochs,
        "batch-size": students.batch_size,
        "lr": students.lr,
        "l2": students.l2,
        "seed": students.seed,
    }
    if students.proximal_mu:
        train_config["proximal-mu"] = students.proximal_mu
    if settings.title == TaskSettings.title:
        settings = replace(
            settings,
            title=f"student-{students.subject}, set-up {students.setup}, {students.target}",
        )
    dataset = {
        "name": schema.SCHEMA_NAME,
        "schema": tagged_digest("dataset-schema/v1", canonical_bytes(schema.describe())),
        "subject": students.subject,
        "setup": students.setup,
        "target": students.target,
        "model": model.name,
        "partition": students.partition,
        "partition-seed": students.partition_seed,
        "holdout": students.holdout,
        "holdout-seed": students.holdout_seed,
    }
    app = AppSettings(app_bundle, dict(run_config or {}), train_config)
    return build_terms(settings, app, initial, dataset), initial


def initial_model_digest(layout: Layout, arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Return the digest of a model whose arrays are in the order of `layout`."""
    weights = b"".join(
        np.ascontiguousarray(arrays[name], dtype="<f4").tobytes() for name, _ in layout.arrays
    )
    return model_digest(layout.digest, weights)


def check_terms(terms: TaskTerms) -> None:
    """Check that a task's own digests name its own parameters and layout.

    Raises
    ------
    RecordError
        The encryption parameters are not what the formulas give.
    ConfigError
        A digest in the terms is not the one of what they say.
    """
    parameters = AdditiveParameters.from_dict(terms.parameters)
    layout = Layout(
        tuple((array.name, array.shape) for array in terms.arrays),
        tuple(Metric(m.name, m.scale, m.maximum) for m in terms.train_metrics),
    )
    for what, stated, derived in (
        ("parameters_id", terms.parameters_id, parameters.identifier),
        ("layout_digest", terms.layout_digest, layout.digest),
        ("backend", parameters.backend, _BACKENDS.get(terms.trust_mode)),
    ):
        if stated != derived:
            raise ConfigError(
                f"the terms' {what} is {stated}; what they describe has {derived}",
                hint="Ask the coordinator to create the task again.",
            )


def _parameters(settings: TaskSettings) -> AdditiveParameters:
    backend = _BACKENDS.get(settings.trust_mode)
    if backend is None:
        raise ConfigError(
            f"trust mode {settings.trust_mode!r} is not available in this version",
            hint=f"Use one of: {', '.join(_BACKENDS)}.",
        )
    return AdditiveParameters.derive(backend, settings.max_nodes, settings.fields)


def _train_metrics(max_samples: int, limit: int) -> tuple[MetricTerm, ...]:
    largest_loss = LARGEST_MEAN_LOSS * max_samples
    if max_samples < 1 or max(max_samples, largest_loss) > limit:
        raise ConfigError(
            f"max_samples is {max_samples}; the encrypted sum has room for 1 to "
            f"{int(limit / LARGEST_MEAN_LOSS)}",
            hint="Lower max_samples, max_nodes or the number of fields per coefficient.",
        )
    # The finest power of two that the packed field still holds.
    scale = min(EVALUATION_SCALE, 1 << (int(limit // largest_loss).bit_length() - 1))
    return (
        MetricTerm(name="train-correct", scale=1, maximum=float(max_samples)),
        MetricTerm(name="train-loss", scale=scale, maximum=largest_loss, weighted=True),
    )


def _evaluation_metrics(max_samples: int) -> tuple[MetricTerm, ...]:
    rows = float(max_samples)
    return (
        MetricTerm(name="num-examples", scale=1, maximum=rows),
        MetricTerm(name="correct", scale=1, maximum=rows),
        MetricTerm(
            name="loss",
            scale=EVALUATION_SCALE,
            maximum=LARGEST_MEAN_LOSS * rows,
            weighted=True,
        ),
    )
