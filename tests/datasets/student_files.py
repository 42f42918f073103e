"""Factories for the tests of the student data."""

import os
from pathlib import Path

import pytest

from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students

CHECKOUT = Path(__file__).resolve().parents[2]


def real_folder() -> Path:
    """Return the folder of the real CSVs, or skip the test."""
    places = [CHECKOUT / "shared/data/student", CHECKOUT.parent / "shared/data/student"]
    if environment := os.environ.get("TWOPM_DATA_DIR"):
        places.insert(0, Path(environment))
    for place in places:
        if (place / "student-mat.csv").is_file() and (place / "student-por.csv").is_file():
            return place
    pytest.skip("the real student-mat.csv and student-por.csv are missing (set TWOPM_DATA_DIR)")


def synthetic_csv(rows: int = 6) -> bytes:
    """Return a small valid CSV."""
    return format_students(synthetic_students("mat", rows))
