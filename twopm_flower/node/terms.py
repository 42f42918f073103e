"""The terms of a task on the student data, from the app's run configuration and few settings."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twopm_flower.datasets import FeatureEncoder, schema
from twopm_flower.datasets.partition import DEFAULT_HOLDOUT
from twopm_flower.errors import ConfigError
from twopm_flower.federated import terms as federated_terms
from twopm_flower.models.logistic_regression import LogisticRegression
from twopm_flower.node.initial_model import read_initial_model
from twopm_flower.privacy.layout import Layout, layout_of
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.terms import TaskTerms, model_digest
from twopm_flower.verify.task_steps import BACKENDS

FloatArrays = dict[str, npt.NDArray[np.float32]]

TRAIN_CONFIG: Final = ("epochs", "lr", "batch-size", "l2", "seed")
"""What of the run configuration the server repeats in its train messages."""

METRICS: Final = {"correct": "int", "loss": "float"}
"""What the app reports of training and of evaluation, beside the number of rows."""


@dataclass(frozen=True)
class TaskSettings:
    """What the coordinator decides beside the app's run configuration.

    Attributes
    ----------
    title : str or None
        For people; made from the run configuration by default.
    quorum : int or None
        Fewest equal model statements; all of `min-contributors`, its largest value, by default.
    max_nodes : int
        Most members: headroom of the encrypted sum is reserved for as many.
    max_samples : int or None
        Most training rows of one node; the size of the whole published file by default.
    synthetic : bool
        Whether made-up rows are allowed. Everything about such a task says SYNTHETIC.
    initial_model : Path or None
        A safetensors file to start from; what the app starts from by default.
    """

    title: str | None = None
    quorum: int | None = None
    max_nodes: int = 10
    max_samples: int | None = None
    synthetic: bool = False
    initial_model: Path | None = None


def read_run_config(app: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the run configuration that nodes will see: the app's own, with some values replaced.

    Parameters
    ----------
    app : Path
        The folder with the app's ``pyproject.toml``.
    overrides : mapping, optional
        As for ``flwr run --run-config``; each name must exist.

    Raises
    ------
    ConfigError
        No Flower app, or a name or a type that it does not have.
    """
    file = app / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{file} has no [tool.flwr.app] table", hint="Pass the folder of a Flower app."
        ) from error
    config = _flattened(table.get("config", {}))
    for name, value in (overrides or {}).items():
        known = config.get(name)
        if known is None:
            raise ConfigError(
                f"the app has no run configuration {name!r}",
                hint=f"It has: {', '.join(sorted(config)) or 'none'}.",
            )
        if isinstance(known, float) and type(value) is int:
            config[name] = float(value)
        elif type(value) is type(known):
            config[name] = value
        else:
            raise ConfigError(
                f"run configuration {name!r} is {value!r}; it has to be a "
                f"{type(known).__name__} like {known!r}"
            )
    return config


def build_student_terms(
    run_config: Mapping[str, Any], settings: TaskSettings, *, app_bundle: str
) -> tuple[TaskTerms, FloatArrays]:
    """Return the terms of a task on the student data, and its initial model.

    Parameters
    ----------
    run_config : mapping
        As the app's nodes will see it; see ``[tool.flwr.app.config]`` of this package.
    settings : TaskSettings
    app_bundle : str
        Digest of the unpacked app.

    Raises
    ------
    ConfigError
        A value is missing or contradicts another one, or the initial model does not fit.
    DataError
        An unknown subject, set-up or target.
    """
    run = _Required(run_config)
    subject = str(run["subject"])
    file = schema.published_file(subject)
    encoder = FeatureEncoder(str(run["setup"]), str(run["target"]))
    model = LogisticRegression(encoder.n_features)
    initial = model.initial(int(run["seed"]))
    if settings.initial_model is not None:
        initial = read_initial_model(settings.initial_model, initial)
    contributors = int(run["min-contributors"])
    quorum = contributors if settings.quorum is None else settings.quorum
    _check_numbers(contributors, quorum, settings.max_nodes, int(run["rounds"]))
    train_config = {name: run[name] for name in TRAIN_CONFIG}
    if float(run["proximal-mu"]) > 0:
        train_config["proximal-mu"] = float(run["proximal-mu"])
    origin = "SYNTHETIC" if settings.synthetic else "UCI"
    terms = federated_terms.build_terms(
        initial,
        title=settings.title or f"{origin} student-{subject}, set-up {encoder.setup}",
        rounds=int(run["rounds"]),
        trust_mode=run["trust-mode"],
        clip=float(run["clip"]),
        min_contributors=contributors,
        quorum=quorum,
        max_samples=settings.max_samples or file.rows,
        max_nodes=settings.max_nodes,
        train_metrics=dict(METRICS),
        evaluation_metrics=dict(METRICS),
        train_config=train_config,
        evaluate_config={},
        run_config=dict(run_config),
        app_bundle=app_bundle,
        colluders=int(run["colluders"]),
        dataset={
            "name": schema.SCHEMA_NAME,
            "label": f"{origin} student-{subject}",
            "synthetic": settings.synthetic,
            "schema": student_schema_digest(),
            "subject": subject,
            "setup": encoder.setup,
            "target": encoder.target,
            "model": model.name,
            "partition": str(run["partition"]),
            "partition-seed": int(run["seed"]),
            "holdout": DEFAULT_HOLDOUT,
            "holdout-seed": int(run["seed"]),
        },
    )
    return terms, initial


def student_schema_digest() -> str:
    """Return the digest of the published schema that this package encodes by."""
    return tagged_digest("dataset-schema/v1", canonical_bytes(schema.describe()))


def initial_model_digest(layout: Layout, arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Return the digest of a model whose arrays are taken in the order of `layout`."""
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
    for what, stated, derived in (
        ("parameters_id", terms.parameters_id, parameters.identifier),
        ("layout_digest", terms.layout_digest, layout_of(terms).digest),
        ("backend", parameters.backend, BACKENDS[terms.trust_mode]),
    ):
        if stated != derived:
            raise ConfigError(
                f"the terms' {what} is {stated}; what they describe has {derived}",
                hint="Ask the coordinator to create the task again.",
            )


class _Required(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise ConfigError(
            f"the run configuration lacks {name!r}",
            hint="This builds tasks for the app of this package; for another app, use "
            "twopm_flower.federated.terms.build_terms (docs/deploy.md).",
        )


def _flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat.update(_flattened(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def quorum_warning(quorum: int, members: int) -> str | None:
    """Return what is to be feared of a quorum that is no majority of the members, if so.

    Parameters
    ----------
    quorum : int
        Fewest equal model statements that make a model final.
    members : int
        Nodes of the roster.
    """
    if 2 * quorum > members:
        return None
    return (
        f"{quorum} of {members} members are no majority: the coordinator and {quorum} nodes "
        "together can make any model final, whatever the others opened. Ask for a task with a "
        f"quorum of {members // 2 + 1} or more."
    )


def _check_numbers(contributors: int, quorum: int, max_nodes: int, rounds: int) -> None:
    if not 2 <= contributors <= max_nodes:
        raise ConfigError(
            f"min-contributors is {contributors}; it goes from 2 to max_nodes = {max_nodes}",
            hint="With two contributors each learns the other's update by subtraction: use 3.",
        )
    if not 1 <= quorum <= contributors:
        raise ConfigError(
            f"quorum is {quorum}; it goes from 1 to min-contributors = {contributors}",
            hint="With a larger one a round could succeed and its model never become final.",
        )
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; a task has 1 or more")
