import hashlib

import pytest

from twopm_flower.datasets.student_csv import format_students, parse_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError


@pytest.mark.parametrize(
    ("subject", "sha256"),
    [
        ("mat", "99c605cf92068e0b3ab16fca4206f871c4059a414dd233e692901665357bc70b"),
        ("por", "3648bae7473acb98752115a8af9c3554951ffa2175ff948d62d17b1fe6648988"),
    ],
)
def test_the_synthetic_students_are_the_same_bytes_on_every_machine(subject, sha256):
    data = format_students(synthetic_students(subject))
    assert hashlib.sha256(data).hexdigest() == sha256


@pytest.mark.parametrize(("subject", "rows"), [("mat", 395), ("por", 649)])
def test_they_follow_the_schema_and_have_as_many_rows_as_the_published_file(subject, rows):
    data = format_students(synthetic_students(subject))
    assert len(parse_students(data, "synthetic")) == rows


def test_another_seed_gives_other_students():
    assert not synthetic_students("mat", seed=1).equals(synthetic_students("mat", seed=2))


def test_grades_follow_from_earlier_grades_and_a_little_from_habits():
    frame = synthetic_students("por", 2000)
    with_final = frame.select_dtypes("number").corr()["G3"]
    assert with_final["G2"] > with_final["G1"] > 0.7
    assert 0.2 < with_final["studytime"] < 0.6
    assert -0.6 < with_final["failures"] < -0.2


def test_no_students_cannot_be_generated():
    with pytest.raises(DataError, match="generate 0 students"):
        synthetic_students("mat", 0)
