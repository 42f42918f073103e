"""The published schema of the UCI "Student Performance" data set.

Names, vocabularies and ranges are those of ``student.txt``, which is published with the data
(P. Cortez and A. Silva, 2008; CC BY 4.0; doi 10.24432/C5TG7T). Nothing here was read off the
rows: every node derives the same encoding without seeing anybody's data, its own included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from twopm_flower.errors import DataError

Subject = Literal["mat", "por"]

SCHEMA_NAME: Final = "uci-student-performance"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class CategoryColumn:
    """A column whose cells are words of a fixed vocabulary.

    Attributes
    ----------
    name : str
        The column's name in the CSV header.
    values : tuple[str, ...]
        The vocabulary in published order. The last value is the reference category of the
        encoding ("no", or "other" for the four columns of more than two values).
    """

    name: str
    values: tuple[str, ...]

    @property
    def kind(self) -> Literal["binary", "nominal"]:
        """``binary`` for two values, ``nominal`` for more."""
        return "binary" if len(self.values) == 2 else "nominal"

    @property
    def expected(self) -> str:
        """What a cell may hold, in words for an error message."""
        return "one of " + ", ".join(self.values)

    def parse(self, cell: str) -> str:
        """Return `cell` if it is in the vocabulary, else raise ValueError."""
        if cell not in self.values:
            raise ValueError(cell)
        return cell

    def describe(self) -> dict[str, object]:
        """Return name, kind and vocabulary, ready for canonical JSON."""
        return {"name": self.name, "kind": self.kind, "values": list(self.values)}


@dataclass(frozen=True)
class NumberColumn:
    """A column of whole numbers within a public range.

    Attributes
    ----------
    name : str
        The column's name in the CSV header.
    low, high : int
        The published range, both ends included.
    """

    name: str
    low: int
    high: int

    @property
    def kind(self) -> Literal["numeric"]:
        """Always ``numeric``."""
        return "numeric"

    @property
    def expected(self) -> str:
        """What a cell may hold, in words for an error message."""
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, cell: str) -> int:
        """Return the number that `cell` spells, or raise ValueError."""
        # int() also takes "1_0", " 7" and digits of other scripts, which are typing errors here.
        if not (cell.isascii() and cell.isdigit()):
            raise ValueError(cell)
        number = int(cell)
        if not self.low <= number <= self.high:
            raise ValueError(cell)
        return number

    def describe(self) -> dict[str, object]:
        """Return name, kind and range, ready for canonical JSON."""
        return {"name": self.name, "kind": self.kind, "low": self.low, "high": self.high}


Column = CategoryColumn | NumberColumn

_JOBS = ("teacher", "health", "services", "at_home", "other")
_YES_NO = ("yes", "no")

COLUMNS: Final[tuple[Column, ...]] = (
    CategoryColumn("school", ("GP", "MS")),
    CategoryColumn("sex", ("F", "M")),
    NumberColumn("age", 15, 22),
    CategoryColumn("address", ("U", "R")),
    CategoryColumn("famsize", ("LE3", "GT3")),
    CategoryColumn("Pstatus", ("T", "A")),
    NumberColumn("Medu", 0, 4),
    NumberColumn("Fedu", 0, 4),
    CategoryColumn("Mjob", _JOBS),
    CategoryColumn("Fjob", _JOBS),
    CategoryColumn("reason", ("home", "reputation", "course", "other")),
    CategoryColumn("guardian", ("mother", "father", "other")),
    NumberColumn("traveltime", 1, 4),
    NumberColumn("studytime", 1, 4),
    NumberColumn("failures", 0, 4),
    CategoryColumn("schoolsup", _YES_NO),
    CategoryColumn("famsup", _YES_NO),
    CategoryColumn("paid", _YES_NO),
    CategoryColumn("activities", _YES_NO),
    CategoryColumn("nursery", _YES_NO),
    CategoryColumn("higher", _YES_NO),
    CategoryColumn("internet", _YES_NO),
    CategoryColumn("romantic", _YES_NO),
    NumberColumn("famrel", 1, 5),
    NumberColumn("freetime", 1, 5),
    NumberColumn("goout", 1, 5),
    NumberColumn("Dalc", 1, 5),
    NumberColumn("Walc", 1, 5),
    NumberColumn("health", 1, 5),
    NumberColumn("absences", 0, 93),
    NumberColumn("G1", 0, 20),
    NumberColumn("G2", 0, 20),
    NumberColumn("G3", 0, 20),
)
"""The 33 columns in published order; G1, G2 and G3 are the grades of the three periods."""

COLUMN_NAMES: Final[tuple[str, ...]] = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True)
class PublishedFile:
    """One CSV of the data set as UCI publishes it.

    Attributes
    ----------
    name : str
        The file's name.
    rows : int
        Students in it.
    sha256 : str
        SHA-256 of its bytes, lower-case hexadecimal.
    """

    name: str
    rows: int
    sha256: str


PUBLISHED_FILES: Final[Mapping[str, PublishedFile]] = MappingProxyType(
    {
        "mat": PublishedFile(
            "student-mat.csv",
            395,
            "e47f9ee225e1ee6e69b7564e6dac7123e80b8486677fe111f351964cef5dec80",
        ),
        "por": PublishedFile(
            "student-por.csv",
            649,
            "a7594a11d7771c0efe1a740824e0e833da9c4cad07c39a9766a874575563fb3f",
        ),
    }
)


def published_file(subject: str) -> PublishedFile:
    """Return the published file of a subject.

    Raises
    ------
    DataError
        The subject is neither ``mat`` nor ``por``.
    """
    try:
        return PUBLISHED_FILES[subject]
    except KeyError:
        raise DataError(
            f"There is no subject {subject!r} in the student data.",
            hint="Choose mat (mathematics) or por (Portuguese).",
        ) from None


def describe() -> dict[str, object]:
    """Return the schema as plain lists, strings and integers.

    Canonical JSON of this value is what a schema digest is computed over.
    """
    return {
        "name": SCHEMA_NAME,
        "version": SCHEMA_VERSION,
        "columns": [column.describe() for column in COLUMNS],
    }
