"""Where a home keeps published data files, and which rows would be used."""

from pathlib import Path

from twopm_flower.datasets import StudentTable, load_students
from twopm_flower.datasets.schema import PUBLISHED_FILES
from twopm_flower.errors import DataError
from twopm_flower.federated.home import write_atomically


def data_folder(home: Path) -> Path:
    """Return the folder in which files are found without being named."""
    return home / "data"


def find_data(home: Path, subject: str, *, require_real: bool = False) -> StudentTable:
    """Return the rows that would be used, without downloading anything."""
    return load_students(
        subject, home=home, allow_download=False, require_real=require_real, progress=False
    )


def add_file(home: Path, file: Path) -> Path:
    """Copy a published file into the home and return where it is now.

    Raises
    ------
    DataError
        It cannot be read, or is not one of the published files, byte for byte.
    """
    for subject, published in PUBLISHED_FILES.items():
        if published.name == file.name:
            table = load_students(subject, file, progress=False)
            break
    else:
        names = " or ".join(published.name for published in PUBLISHED_FILES.values())
        raise DataError(
            f"{file.name} is not the name of a published file.", hint=f"Expected is {names}."
        )
    if not table.is_published:
        raise DataError(
            f"{file} is not the published file: its sha256 is {table.sha256}, not "
            f"{published.sha256}.",
            hint="To use other rows, name the file at 'twopm task join --data FILE'.",
        )
    stored = data_folder(home) / published.name
    write_atomically(stored, file.read_bytes())
    return stored
