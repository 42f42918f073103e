import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.datasets import SETUPS, TARGETS, FeatureEncoder
from twopm_flower.datasets.schema import COLUMNS, CategoryColumn
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError

STUDENTS = synthetic_students("mat", 40)


def one(**cells) -> pd.DataFrame:
    """Return one student with some cells replaced."""
    return STUDENTS.head(1).reset_index(drop=True).assign(**cells)


def value(encoder: FeatureEncoder, frame: pd.DataFrame, name: str) -> float:
    return float(encoder.encode_features(frame)[0, encoder.feature_names.index(name)])


@pytest.mark.parametrize(("setup", "n"), [("A", 41), ("B", 40), ("C", 39)])
def test_each_setup_has_its_grades_and_no_others(setup, n):
    encoder = FeatureEncoder(setup)
    grades = {name for name in encoder.feature_names if name.startswith("G") and "=" not in name}
    assert grades == {"A": {"G1", "G2"}, "B": {"G1"}, "C": set()}[setup]
    assert encoder.n_features == n
    features, labels = encoder.encode(STUDENTS)
    assert features.shape == (40, n)
    assert labels.shape == (40,)
    assert features.dtype == labels.dtype == np.float32


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("setup", SETUPS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_grades_that_a_setup_hides_cannot_change_its_features(setup, target, seed):
    encoder = FeatureEncoder(setup, target)
    hidden = {"A": ["G3"], "B": ["G2", "G3"], "C": ["G1", "G2", "G3"]}[setup]
    other = STUDENTS.copy()
    for name in hidden:
        other[name] = np.random.default_rng(seed).integers(0, 21, len(other))
    np.testing.assert_array_equal(encoder.encode_features(STUDENTS), encoder.encode_features(other))
    np.testing.assert_array_equal(
        encoder.encode_features(STUDENTS), encoder.encode_features(STUDENTS.drop(columns=hidden))
    )


@given(rows=st.lists(st.integers(0, 39), min_size=1, max_size=10))
def test_a_row_is_encoded_alike_whatever_other_rows_a_node_has(rows):
    encoder = FeatureEncoder("A")
    whole = encoder.encode_features(STUDENTS)
    np.testing.assert_array_equal(encoder.encode_features(STUDENTS.iloc[rows]), whole[rows])


def test_numbers_go_from_their_public_range_to_minus_one_and_one_and_grades_to_four():
    encoder = FeatureEncoder("A")
    assert [value(encoder, one(age=age), "age") for age in (15, 22)] == [-1, 1]
    assert [value(encoder, one(health=level), "health") for level in (1, 3, 4)] == [-1, 0, 0.5]
    for grade in ("G1", "G2"):
        assert [value(encoder, one(**{grade: points}), grade) for points in (0, 5, 10, 20)] == [
            -4,
            -2,
            0,
            4,
        ]


@pytest.mark.parametrize("setup", SETUPS)
def test_no_feature_leaves_its_published_range_and_each_reaches_it(setup):
    encoder = FeatureEncoder(setup)
    allowed = {
        column.name: column.values
        if isinstance(column, CategoryColumn)
        else (column.low, column.high)
        for column in COLUMNS
    }
    rows = [one(**{name: cell}) for name, cells in allowed.items() for cell in cells]
    features = encoder.encode_features(pd.concat(rows))
    assert tuple(np.abs(features).max(axis=0)) == encoder.ranges


def test_words_are_one_hot_and_the_last_published_word_is_all_zeros():
    encoder = FeatureEncoder("C")
    jobs = ["teacher", "health", "services", "at_home", "other"]
    matrix = [[value(encoder, one(Mjob=job), f"Mjob={word}") for word in jobs[:-1]] for job in jobs]
    assert matrix == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert "Mjob=other" not in encoder.feature_names
    assert [value(encoder, one(paid=word), "paid=yes") for word in ("yes", "no")] == [1, 0]


@pytest.mark.parametrize(
    ("first", "final", "passed", "improved"),
    [(9, 10, 1, 1), (12, 10, 1, 0), (9, 9, 0, 0), (3, 9, 0, 1)],
)
def test_the_targets_are_ten_points_or_more_and_more_than_in_the_first_period(
    first, final, passed, improved
):
    student = one(G1=first, G3=final)
    assert FeatureEncoder("C", "pass").encode(student)[1].tolist() == [passed]
    assert FeatureEncoder("C", "improvement").encode(student)[1].tolist() == [improved]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"Mjob": "pilot"}, "row 0, column Mjob: 'pilot' is not one of"),
        ({"Mjob": None}, "row 0, column Mjob"),
        ({"age": float("nan")}, "row 0, column age"),
        ({"age": 15.5}, "row 0, column age: .*15.5.* is not a whole number"),
        ({"absences": 94}, "row 0, column absences"),
        ({"absences": -1}, "row 0, column absences"),
        ({"health": "good"}, "row 0, column health: 'good' is not a whole number from 1 to 5"),
    ],
)
def test_a_value_outside_the_schema_is_refused_with_row_and_column(cells, says):
    with pytest.raises(DataError, match=says):
        FeatureEncoder("A").encode(one(**cells))


def test_the_row_that_is_named_is_the_wrong_one():
    frame = STUDENTS.copy()
    frame.loc[17, "G2"] = 99
    with pytest.raises(DataError, match=r"row 17, column G2: .*99"):
        FeatureEncoder("A").encode(frame)


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="no column studytime"):
        FeatureEncoder("A").encode(STUDENTS.drop(columns="studytime"))


def test_labels_need_the_final_grade_that_features_do_not():
    unlabelled = STUDENTS.drop(columns="G3")
    assert FeatureEncoder("A").encode_features(unlabelled).shape == (40, 41)
    with pytest.raises(DataError, match="no column G3"):
        FeatureEncoder("A").encode(unlabelled)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="no students"):
        FeatureEncoder("A").encode(STUDENTS.head(0))


def test_unknown_setups_and_targets_are_refused_with_the_choice():
    with pytest.raises(DataError, match=r"'D'.*Choose A"):
        FeatureEncoder("D")
    with pytest.raises(DataError, match=r"'luck'.*Choose pass"):
        FeatureEncoder("A", "luck")


def test_the_description_is_json_and_differs_between_encodings():
    texts = {
        json.dumps(FeatureEncoder(setup, target).describe())
        for setup in SETUPS
        for target in TARGETS
    }
    assert len(texts) == 6
