import contextlib

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from student_files import real_folder, synthetic_csv

from twopm_flower.datasets.schema import COLUMN_NAMES, COLUMNS, CategoryColumn
from twopm_flower.datasets.student_csv import format_students, parse_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError


def with_cell(line: int, column: str, text: str) -> bytes:
    """Return a valid file with one cell replaced; `line` counts from 1, the header."""
    lines = synthetic_csv().decode().splitlines()
    cells = lines[line - 1].split(";")
    cells[COLUMN_NAMES.index(column)] = text
    lines[line - 1] = ";".join(cells)
    return "\n".join(lines).encode()


def complaint(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        parse_students(data, "school.csv")
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("subject", ["mat", "por"])
def test_the_published_files_read_as_pandas_reads_them(subject):
    path = real_folder() / f"student-{subject}.csv"
    ours = parse_students(path.read_bytes(), path.name)
    pd.testing.assert_frame_equal(ours, pd.read_csv(path, sep=";"), check_dtype=False)
    assert all(ours[name].dtype == "int64" for name in ("age", "G1", "G2", "G3"))


def test_what_is_written_reads_back_equal():
    frame = synthetic_students("por", 50)
    pd.testing.assert_frame_equal(parse_students(format_students(frame), "x"), frame)


def test_quotes_a_byte_order_mark_windows_line_ends_and_blank_lines_do_not_matter():
    plain = synthetic_csv()
    quoted = b"\n".join(
        b";".join(b'"%s"' % cell for cell in line.split(b";")) for line in plain.splitlines()
    )
    windows = b"\xef\xbb\xbf" + quoted.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    pd.testing.assert_frame_equal(parse_students(windows, "x"), parse_students(plain, "x"))


def test_columns_in_another_order_are_put_in_published_order():
    lines = [line.split(";")[::-1] for line in synthetic_csv().decode().splitlines()]
    reversed_columns = "\n".join(";".join(cells) for cells in lines).encode()
    assert lines[0][0] == "G3"
    pd.testing.assert_frame_equal(
        parse_students(reversed_columns, "x"), parse_students(synthetic_csv(), "x")
    )


@pytest.mark.parametrize(
    ("cell", "column", "says"),
    [
        ("XX", "school", "'XX' is not one of GP, MS"),
        ("yes ", "paid", "'yes ' is not one of yes, no"),
        ("at home", "Mjob", "'at home' is not one of teacher"),
        ("10.5", "G2", "'10.5' is not a whole number from 0 to 20"),
        ("21", "G3", "'21' is not a whole number from 0 to 20"),
        ("-1", "absences", "'-1' is not a whole number from 0 to 93"),
        ("14", "age", "'14' is not a whole number from 15 to 22"),
        ("1_0", "G1", "'1_0' is not a whole number"),
        ("٣", "health", "is not a whole number"),
        ("", "age", "the value is missing"),
        ("NaN", "G1", "the value is missing ('NaN')"),
        ("NA", "sex", "the value is missing ('NA')"),
    ],
)
def test_a_bad_cell_is_refused_with_file_line_and_column(cell, column, says):
    message = complaint(with_cell(4, column, cell))
    assert message.startswith(f"school.csv, line 4, column {column}")
    assert says in message


@pytest.mark.parametrize(("mark", "name"), [(",", "commas"), ("\t", "tabs"), ("|", "vertical")])
def test_a_wrong_separator_is_named(mark, name):
    message = complaint(synthetic_csv().replace(b";", mark.encode()))
    assert "school.csv, line 1" in message
    assert f"separated by {name}" in message


def test_a_missing_column_is_named():
    message = complaint(with_cell(1, "failures", "G9"))
    assert "line 1: missing column 'failures'" in message


def test_an_unknown_column_is_named():
    lines = [line + ";7" for line in synthetic_csv().decode().splitlines()]
    lines[0] = lines[0][:-1] + "shoe_size"
    assert "unknown column 'shoe_size'" in complaint("\n".join(lines).encode())


def test_a_repeated_column_is_named():
    lines = [line + ";7" for line in synthetic_csv().decode().splitlines()]
    lines[0] = lines[0][:-1] + "age"
    assert "repeated column 'age'" in complaint("\n".join(lines).encode())


def test_a_cut_off_row_is_named_with_its_first_missing_column():
    lines = synthetic_csv().decode().splitlines()
    lines[2] = ";".join(lines[2].split(";")[:31])
    message = complaint("\n".join(lines).encode())
    assert "line 3, column G2: the row has 31 cells, not 33" in message


def test_a_row_with_a_cell_too_many_is_named():
    lines = synthetic_csv().decode().splitlines()
    lines[2] += ";1"
    assert "line 3, column number 34" in complaint("\n".join(lines).encode())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "header is missing"),
        (synthetic_csv().splitlines()[0] + b"\n", "no rows"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "line 1: not UTF-8 text"),
        (synthetic_csv() + b"\xff;", "line 8: not UTF-8 text"),
        (synthetic_csv() + b'"GP', "not well-formed CSV"),
    ],
    ids=["empty", "header only", "picture", "bad byte", "open quote"],
)
def test_what_is_no_student_file_is_refused(data, says):
    assert says in complaint(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_students_or_a_data_error(data):
    with contextlib.suppress(DataError):
        parse_students(data, "x")


@given(
    row=st.integers(2, 7),
    column=st.sampled_from(COLUMNS),
    cell=st.text(st.characters(exclude_characters=';"\r\n', codec="utf-8"), max_size=6),
)
def test_a_cell_is_accepted_exactly_when_the_schema_allows_it(row, column, cell):
    if isinstance(column, CategoryColumn):
        allowed = cell in column.values
    else:
        allowed = cell.isascii() and cell.isdigit() and column.low <= int(cell) <= column.high
    data = with_cell(row, column.name, cell)
    if allowed:
        assert str(parse_students(data, "x")[column.name].iloc[row - 2]) in (cell, cell.lstrip("0"))
    else:
        assert f"line {row}, column {column.name}" in complaint(data)


def test_a_grade_that_is_yet_to_be_given_may_be_missing_and_no_other_column():
    frame = synthetic_students("mat", 5)
    ungraded = frame.drop(columns=["G3"]).to_csv(sep=";", index=False).encode()
    read = parse_students(ungraded, "school.csv", may_lack=["G2", "G3"])
    pd.testing.assert_frame_equal(read, frame.drop(columns=["G3"]))
    assert "missing column 'G3'" in complaint(ungraded)
    unnamed = frame.drop(columns=["age"]).to_csv(sep=";", index=False).encode()
    with pytest.raises(DataError, match="missing column 'age'"):
        parse_students(unnamed, "school.csv", may_lack=["G3"])
