import json

import pytest
from student_files import real_folder

from twopm_flower.datasets import schema
from twopm_flower.datasets.student_csv import parse_students
from twopm_flower.errors import DataError


def test_the_schema_has_the_33_published_columns_in_order():
    header = (real_folder() / "student-mat.csv").read_text().splitlines()[0]
    assert list(schema.COLUMN_NAMES) == header.split(";")


def test_every_published_word_occurs_in_the_real_data_so_none_is_misspelt():
    frame = parse_students((real_folder() / "student-por.csv").read_bytes(), "por")
    for column in schema.COLUMNS:
        if isinstance(column, schema.CategoryColumn):
            assert set(frame[column.name]) == set(column.values)


def test_the_description_is_plain_json_and_says_everything():
    described = schema.describe()
    assert json.loads(json.dumps(described)) == described
    columns = described["columns"]
    assert columns[2] == {"name": "age", "kind": "numeric", "low": 15, "high": 22}
    assert columns[0] == {"name": "school", "kind": "binary", "values": ["GP", "MS"]}
    assert columns[11]["kind"] == "nominal"
    assert len(columns) == 33


def test_an_unknown_subject_is_refused_with_the_choice():
    with pytest.raises(DataError, match=r"'art'.*mat"):
        schema.published_file("art")
