"""Loading the student data: a given file, a folder, the cache, UCI, or a loud synthetic cohort."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from twopm_flower.datasets.download import UCI_URL, download
from twopm_flower.datasets.schema import PublishedFile, published_file
from twopm_flower.datasets.student_csv import format_students, parse_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError, RealDataMissingError

DATA_DIR_VARIABLE: Final = "TWOPM_DATA_DIR"
HOME_VARIABLE: Final = "TWOPM_HOME"
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Above this, a file is not read: the published ones have less than 100 kB."""

Source = Literal["file", "cache", "download", "synthetic"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentTable:
    """Students, and where they come from.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per student, the 33 published columns.
    subject : str
        ``mat`` or ``por``.
    source : {"file", "cache", "download", "synthetic"}
        Where the rows come from.
    path : Path or None
        The file that was read; None for synthetic students.
    sha256 : str
        SHA-256 of the CSV bytes, lower-case hexadecimal.
    """

    frame: pd.DataFrame
    subject: str
    source: Source
    path: Path | None
    sha256: str

    @property
    def is_synthetic(self) -> bool:
        """Whether the students are made up."""
        return self.source == "synthetic"

    @property
    def is_published(self) -> bool:
        """Whether the bytes are exactly those that UCI publishes."""
        return self.sha256 == published_file(self.subject).sha256

    @property
    def label(self) -> str:
        """What tables, bundles and plots call the data."""
        rows = f"({len(self.frame)} rows)"
        if self.is_synthetic:
            return f"SYNTHETIC student-{self.subject} {rows}"
        if self.is_published:
            return f"UCI student-{self.subject} {rows}"
        name = self.path.name if self.path else f"student-{self.subject}"
        return f"{name} {rows}, not the published file"


def load_students(
    subject: str = "mat",
    path: str | Path | None = None,
    *,
    extra_dirs: Sequence[str | Path] = (),
    home: str | Path | None = None,
    allow_download: bool = True,
    require_real: bool = False,
    progress: bool = True,
    url: str = UCI_URL,
) -> StudentTable:
    """Load one subject of the UCI "Student Performance" data.

    The places are tried in this order: `path`; the folder in ``$TWOPM_DATA_DIR``; `extra_dirs`;
    the cache ``<home>/data``; a download from UCI into the cache; a synthetic cohort of the same
    schema, announced by a logged warning that says where was looked.
    Everywhere but in `path` the file must be the published one, byte for byte.

    Parameters
    ----------
    subject : {"mat", "por"}
        Mathematics (395 students) or Portuguese (649 students).
    path : str or Path, optional
        A CSV, or a folder with the published file name in it. Nothing else is tried.
    extra_dirs : sequence of str or Path
        More folders to look in.
    home : str or Path, optional
        Folder of twopm-flower; ``$TWOPM_HOME``, or ``~/.twopm``, if not given.
    allow_download : bool
        Whether UCI may be asked.
    require_real : bool
        Raise rather than make up students.
    progress : bool
        Show a progress bar while downloading.
    url : str
        The archive to download.

    Returns
    -------
    StudentTable
        The students and their source.

    Raises
    ------
    RealDataMissingError
        `require_real` and there is no real file.
    DataError
        Unknown subject, `path` without a file, a found file that is not the published one, or
        one that does not follow the schema; file, line and column are named.
    """
    file = published_file(subject)
    if path is not None:
        return _from_path(subject, Path(path).expanduser(), file, require_real=require_real)

    cache = _home(home) / "data"
    folders = [Path(folder).expanduser() for folder in extra_dirs]
    if environment := os.environ.get(DATA_DIR_VARIABLE):
        folders.insert(0, Path(environment).expanduser())
    for folder in folders:
        if (folder / file.name).is_file():
            return _read(subject, folder / file.name, "file", file)
    if (cache / file.name).is_file():
        return _read(subject, cache / file.name, "cache", file)

    looked = ", ".join(str(folder) for folder in [*folders, cache])
    problem = f"No {file.name} in {looked}."
    hint = f"Get it from {url} and run: twopm data add {file.name}"
    if allow_download:
        try:
            return _read(
                subject, download(file, cache, url=url, progress=progress), "download", file
            )
        except DataError as error:
            problem, hint = f"{problem} {error.message}", error.hint or hint
    if require_real:
        raise RealDataMissingError(f"Real data is required. {problem}", hint=hint)
    return _synthetic(subject, f"{problem} {hint}")


def _home(home: str | Path | None) -> Path:
    chosen = home or os.environ.get(HOME_VARIABLE) or "~/.twopm"
    return Path(chosen).expanduser()


def _from_path(
    subject: str, path: Path, file: PublishedFile, *, require_real: bool
) -> StudentTable:
    found = path / file.name if path.is_dir() else path
    if not found.is_file():
        missing = RealDataMissingError if require_real else DataError
        raise missing(
            f"There is no file {found}.", hint=f"Give {file.name}, or the folder that holds it."
        )
    return _read(subject, found, "file", None)


def _read(subject: str, path: Path, source: Source, expected: PublishedFile | None) -> StudentTable:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"{path} has {size} bytes, more than {MAX_FILE_BYTES}.",
                hint="Give the student CSV, or a part of it.",
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"Cannot read {path}: {error.strerror}.", hint="Check its permissions."
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if expected is not None and digest != expected.sha256:
        raise DataError(
            f"{path} is not the published file: its sha256 is {digest}, not {expected.sha256}.",
            hint="Remove it, or give its path explicitly to use it as it is.",
        )
    return StudentTable(parse_students(data, str(path)), subject, source, path, digest)


def _synthetic(subject: str, why: str) -> StudentTable:
    message = (
        f"SYNTHETIC DATA: the students of {subject} are made up, and so is every result. {why}"
    )
    _logger.warning(message)
    frame = synthetic_students(subject)
    digest = hashlib.sha256(format_students(frame)).hexdigest()
    return StudentTable(frame, subject, "synthetic", None, digest)
