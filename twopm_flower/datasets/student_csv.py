"""Reading and writing the student CSV, strictly: every cell is checked against the schema."""

import csv
import io
from collections.abc import Collection, Sequence

import pandas as pd

from twopm_flower.datasets.schema import COLUMN_NAMES, COLUMNS, Column, NumberColumn
from twopm_flower.errors import DataError

SEPARATOR = ";"

_HEADER_HINT = (
    "Use the file as UCI publishes it: 33 columns separated by semicolons, names in the first line."
)
_MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
_MOST_NAMES_SHOWN = 5


def parse_students(data: bytes, file: str, *, may_lack: Collection[str] = ()) -> pd.DataFrame:
    """Parse the bytes of a student CSV.

    Parameters
    ----------
    data : bytes
        The whole file: UTF-8, semicolon-separated, one header line.
    file : str
        What to call the file in error messages.
    may_lack : collection of str
        Columns that need not be there, such as a grade that is yet to be given.

    Returns
    -------
    pandas.DataFrame
        One row per student with the 33 columns in published order, but for those that are
        lacking; categories are strings, numbers ``int64``.

    Raises
    ------
    DataError
        The file is not UTF-8 text, has another separator, a missing, unknown or repeated column,
        no rows, or a cell that the schema does not allow. File, line (the header is line 1) and
        column are named.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: not UTF-8 text.", hint=_HEADER_HINT) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATOR, strict=True)
    try:
        header = next(reader, [])
        _check_header(header, file, may_lack)
        columns = [COLUMNS[COLUMN_NAMES.index(name)] for name in header]
        cells: dict[str, list[str | int]] = {name: [] for name in COLUMN_NAMES if name in header}
        for row in reader:
            if not row:  # a blank line holds no student
                continue
            _check_length(row, header, file, reader.line_num)
            for column, cell in zip(columns, row, strict=True):
                cells[column.name].append(_parse_cell(column, cell, file, reader.line_num))
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num}: not well-formed CSV ({error}).", hint=_HEADER_HINT
        ) from error
    if not cells[columns[0].name]:
        raise DataError(f"{file} has a header but no rows.", hint=_HEADER_HINT)
    frame = pd.DataFrame(cells)
    numbers = {column.name: "int64" for column in columns if isinstance(column, NumberColumn)}
    return frame.astype(numbers)


def format_students(frame: pd.DataFrame) -> bytes:
    """Write students as `parse_students` reads them: no quotes, line feeds, published order."""
    text = frame.loc[:, list(COLUMN_NAMES)].to_csv(sep=SEPARATOR, index=False, lineterminator="\n")
    return text.encode("utf-8")


def _check_header(header: Sequence[str], file: str, may_lack: Collection[str]) -> None:
    if not header:
        raise DataError(f"{file}, line 1: the header is missing.", hint=_HEADER_HINT)
    if len(header) == 1 and header[0] not in COLUMN_NAMES:
        found = next((mark for mark in (",", "\t", "|") if mark in header[0]), None)
        if found is not None:
            name = {",": "commas", "\t": "tabs", "|": "vertical bars"}[found]
            raise DataError(
                f"{file}, line 1: the columns are separated by {name}, not by semicolons.",
                hint="Save the file again with ';' as the separator.",
            )
    problems = {
        "missing": [name for name in COLUMN_NAMES if name not in (*header, *may_lack)],
        "unknown": [name for name in header if name not in COLUMN_NAMES],
        "repeated": sorted({name for name in header if header.count(name) > 1}),
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - _MOST_NAMES_SHOWN} more" * (len(names) > _MOST_NAMES_SHOWN)
            shown = ", ".join(repr(name) for name in names[:_MOST_NAMES_SHOWN])
            raise DataError(
                f"{file}, line 1: {problem} column {shown}{more}.",
                hint=_HEADER_HINT,
            )


def _check_length(row: Sequence[str], header: Sequence[str], file: str, line: int) -> None:
    expected = len(header)
    if len(row) != expected:
        # The first cell that is missing, or that is too many, is where to look.
        where = header[len(row)] if len(row) < expected else f"number {expected + 1}"
        raise DataError(
            f"{file}, line {line}, column {where}: the row has {len(row)} cells, not {expected}.",
            hint="Look for a cut-off row or a stray separator.",
        )


def _parse_cell(column: Column, cell: str, file: str, line: int) -> str | int:
    try:
        return column.parse(cell)
    except ValueError:
        where = f"{file}, line {line}, column {column.name}"
        if cell.strip().lower() in _MISSING_WORDS:
            problem = f"{where}: the value is missing ({cell!r})."
        else:
            problem = f"{where}: {cell!r} is not {column.expected}."
        raise DataError(
            problem, hint=f"Every cell of {column.name} holds {column.expected}."
        ) from None
