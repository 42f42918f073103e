"""Which rows a node contributes to a task: chosen and committed once, checked at every use."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from twopm_flower.datasets import FeatureEncoder, StudentTable, load_students
from twopm_flower.datasets.partition import Split, partition, split_holdout
from twopm_flower.datasets.schema import SCHEMA_NAME
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import ConfigError, DataError, RealDataMissingError
from twopm_flower.federated.home import TaskFolder, write_atomically
from twopm_flower.node.terms import student_schema_digest
from twopm_flower.privacy.secret_files import read_secret_file, write_secret_file
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.fields import Digest, Record, Uint53
from twopm_flower.records.terms import TaskTerms, data_commitment

_SALT_FILE = "data.salt"
_CHOICE_FILE = "data.json"

Floats = npt.NDArray[np.float32]


class DataChoice(Record):
    """The rows that a node contributes to a task; its own note, handed to nobody.

    Attributes
    ----------
    kind : str
        ``students``: rows of the student data; ``file``: an opaque file of an app's own.
    path : str or None
        The file; None where the students are synthetic.
    sha256 : str
        Of the CSV's or the file's bytes.
    partition, partitions : int or None
        Which part of how many, where several nodes share one file.
    samples, held_out : int
        Training rows, and rows kept for evaluation.
    commitment : str
        What the node signed.
    """

    kind: Literal["students", "file"]
    path: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    label: str
    partition: Uint53 | None
    partitions: Uint53 | None
    samples: Uint53
    held_out: Uint53
    commitment: Digest


@dataclass(frozen=True)
class NodeRows:
    """A node's rows, encoded.

    Attributes
    ----------
    train_x, held_out_x : ndarray of float32, shape (rows, features)
    train_y, held_out_y : ndarray of float32, shape (rows,)
    label : str
        Where they come from, for people; says SYNTHETIC when they are made up.
    is_synthetic : bool
    """

    train_x: Floats
    train_y: Floats
    held_out_x: Floats
    held_out_y: Floats
    label: str
    is_synthetic: bool


@dataclass(frozen=True)
class DataSource:
    """Where a joining node finds its rows.

    Attributes
    ----------
    path : Path or None
        A file or a folder; None looks in the usual places.
    partition, partitions : int or None
        Which part of how many; None takes all rows.
    samples : int or None
        The number of training rows in a file that only the app understands.
    allow_download, require_real : bool
        See :func:`twopm_flower.datasets.load_students`.
    """

    path: Path | None = None
    partition: int | None = None
    partitions: int | None = None
    samples: int | None = None
    allow_download: bool = True
    require_real: bool = False


def choose_rows(folder: TaskFolder, terms: TaskTerms, source: DataSource) -> DataChoice:
    """Choose the rows that a node contributes, commit to them and remember both.

    The 32-byte salt is made once and kept with mode 0600, so choosing the same rows again
    gives the same commitment.

    Raises
    ------
    DataError
        The rows cannot be read, or are more than the terms allow.
    ConfigError
        The partition does not exist, or the terms are for other data.
    RealDataMissingError
        No real rows, and the task allows no others.
    """
    if terms.dataset.get("name") == SCHEMA_NAME:
        choice = _choose_students(folder, terms, source)
    else:
        choice = _choose_file(folder, source)
    if choice.samples > terms.max_samples:
        raise DataError(
            f"this node has {choice.samples} training rows; the task allows {terms.max_samples}",
            hint="Ask the coordinator for a task with a larger --max-samples, or use fewer rows.",
        )
    write_atomically(folder.path / _CHOICE_FILE, choice.to_bytes(), mode=0o600)
    return choice


def has_chosen(folder: TaskFolder) -> bool:
    """Tell whether this node's operator chose its data; simulated nodes have none to."""
    return (folder.path / _CHOICE_FILE).exists()


def load_choice(folder: TaskFolder) -> DataChoice:
    """Return what :func:`choose_rows` remembered.

    Raises
    ------
    ConfigError
        This node chose no data for the task.
    """
    file = folder.path / _CHOICE_FILE
    if not file.exists():
        raise ConfigError(
            f"this node chose no data for task {folder.task_id}",
            hint="Run 'twopm task join INVITATION --data FILE'.",
        )
    return DataChoice.from_bytes(file.read_bytes())


def load_rows(folder: TaskFolder) -> NodeRows:
    """Return the node's rows of a student task, checked against its commitment.

    Raises
    ------
    DataError
        The data are not the ones that the node committed to.
    """
    choice, terms = load_choice(folder), folder.terms
    if choice.kind != "students":
        raise ConfigError(f"the rows of task {folder.task_id} are known to its own app only")
    table, split = _students(terms, choice)
    content = _content(table, split)
    commitment = data_commitment(_salt(folder), len(split.train), content)
    if table.sha256 != choice.sha256 or commitment != choice.commitment:
        raise DataError(
            f"{choice.path or 'the synthetic data'} is not what this node committed to",
            hint="Restore the file as it was at 'twopm task join'; the salt must be the same too.",
        )
    encoder = FeatureEncoder(terms.dataset["setup"], terms.dataset["target"])
    train_x, train_y = encoder.encode(table.frame.iloc[split.train])
    held_x, held_y = encoder.encode(table.frame.iloc[split.held_out])
    return NodeRows(train_x, train_y, held_x, held_y, table.label, table.is_synthetic)


def _choose_students(folder: TaskFolder, terms: TaskTerms, source: DataSource) -> DataChoice:
    if terms.dataset.get("schema") != student_schema_digest():
        raise ConfigError(
            "the task uses another version of the student data's schema than this package",
            hint="Install the version of twopm-flower that the coordinator uses.",
        )
    if (source.partition is None) != (source.partitions is None):
        raise ConfigError("--partition and --partitions belong together")
    table = load_students(
        terms.dataset["subject"],
        source.path,
        home=folder.path.parents[1],
        allow_download=source.allow_download,
        require_real=source.require_real,
        progress=False,
    )
    if table.is_synthetic and not terms.dataset.get("synthetic"):
        raise RealDataMissingError(
            "no real data was found, and this task does not allow made-up rows",
            hint="Pass --data FILE, or run 'twopm data add FILE'.",
        )
    split = _split(table, terms.dataset, source.partition, source.partitions)
    content = _content(table, split)
    return DataChoice(
        kind="students",
        path=None if table.path is None else str(table.path.absolute()),
        sha256=table.sha256,
        label=table.label,
        partition=source.partition,
        partitions=source.partitions,
        samples=len(split.train),
        held_out=len(split.held_out),
        commitment=data_commitment(_salt(folder), len(split.train), content),
    )


def _choose_file(folder: TaskFolder, source: DataSource) -> DataChoice:
    if source.path is None or source.samples is None:
        raise ConfigError(
            "the task brings data of its own kind: say which file, and how many rows train",
            hint="Pass --data FILE and --samples N.",
        )
    try:
        content = source.path.read_bytes()
    except OSError as error:
        raise DataError(f"{source.path} cannot be read: {error.strerror}") from error
    commitment = data_commitment(_salt(folder), source.samples, content)
    return DataChoice(
        kind="file",
        path=str(source.path.absolute()),
        sha256=tagged_digest("data-file/v1", content)[2:],
        label=source.path.name,
        partition=None,
        partitions=None,
        samples=source.samples,
        held_out=0,
        commitment=commitment,
    )


def _students(terms: TaskTerms, choice: DataChoice) -> tuple[StudentTable, Split]:
    subject = terms.dataset["subject"]
    if choice.path is None:
        frame = synthetic_students(subject)
        digest = hashlib.sha256(format_students(frame)).hexdigest()
        table = StudentTable(frame, subject, "synthetic", None, digest)
    else:
        table = load_students(subject, choice.path, allow_download=False, progress=False)
    return table, _split(table, terms.dataset, choice.partition, choice.partitions)


def _split(
    table: StudentTable, dataset: dict[str, Any], part: int | None, parts: int | None
) -> Split:
    if part is None or parts is None:
        rows = np.arange(len(table.frame), dtype=np.int64)
    else:
        if not 0 <= part < parts:
            raise ConfigError(f"there is no partition {part} of {parts}: they count from 0")
        every = partition(table.frame, parts, dataset["partition"], seed=dataset["partition-seed"])
        rows = every[part]
    return split_holdout(rows, dataset["holdout"], seed=dataset["holdout-seed"])


def _content(table: StudentTable, split: Split) -> bytes:
    return format_students(table.frame.iloc[split.train])


def _salt(folder: TaskFolder) -> bytes:
    file = folder.path / _SALT_FILE
    if not file.exists():
        write_secret_file(file, secrets.token_bytes(32))
    return read_secret_file(file)
