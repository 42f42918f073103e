import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.datasets import partition, pool, split_holdout
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError

STUDENTS = synthetic_students("mat", 60)


@given(rows=st.integers(1, 60), n=st.integers(1, 12), seed=st.integers(0, 5))
def test_every_row_goes_to_exactly_one_node_in_parts_of_equal_size(rows, n, seed):
    frame = STUDENTS.head(rows)
    if rows < n:
        with pytest.raises(DataError, match=f"Node {rows} of {n} would get no rows"):
            partition(frame, n, seed=seed)
        return
    parts = partition(frame, n, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


def test_the_shuffle_is_the_documented_order_of_hashes():
    by_hash = sorted(
        range(60),
        key=lambda row: hashlib.sha256(f"twopm-flower/partition/7/{row}".encode()).digest(),
    )
    parts = partition(STUDENTS, 4, seed=7)
    assert [part.tolist() for part in parts] == [sorted(by_hash[node::4]) for node in range(4)]


def test_the_seed_and_nothing_else_decides():
    first, again, other = (partition(STUDENTS, 3, seed=seed)[0] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    shuffled_index = STUDENTS.set_index(np.arange(60)[::-1])
    assert partition(shuffled_index, 3, seed=1)[0].tolist() == first.tolist()


@pytest.mark.parametrize(("n", "nodes_of_gp"), [(2, 1), (3, 2), (5, 4)])
def test_by_school_no_node_mixes_schools_and_the_larger_one_gets_more_nodes(n, nodes_of_gp):
    frame = pd.DataFrame({"school": ["MS"] * 10 + ["GP"] * 40})
    parts = partition(frame, n, "school", seed=3)
    schools = [set(frame["school"].iloc[part]) for part in parts]
    assert schools == [{"GP"}] * nodes_of_gp + [{"MS"}] * (n - nodes_of_gp)
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))


def test_two_schools_cannot_be_kept_apart_on_one_node():
    with pytest.raises(DataError, match=r"2 schools to 1 nodes.*Use 2 or more"):
        partition(STUDENTS, 1, "school")


def test_by_school_an_empty_node_is_refused():
    frame = pd.DataFrame({"school": ["GP", "MS"]})
    with pytest.raises(DataError, match="would get no rows"):
        partition(frame, 3, "school")


def test_by_school_needs_the_column():
    with pytest.raises(DataError, match="no column school"):
        partition(STUDENTS.drop(columns="school"), 2, "school")


@pytest.mark.parametrize(("n", "scheme", "says"), [(0, "iid", "0 nodes"), (2, "age", "'age'")])
def test_nonsense_is_refused(n, scheme, says):
    with pytest.raises(DataError, match=says):
        partition(STUDENTS, n, scheme)


@given(
    rows=st.sets(st.integers(0, 10_000), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_a_holdout_divides_the_rows_and_leaves_neither_part_empty(rows, fraction, seed):
    split = split_holdout(np.array(sorted(rows)), fraction, seed=seed)
    assert set(split.train) | set(split.held_out) == rows
    assert len(split.train) + len(split.held_out) == len(rows)
    assert len(split.train) >= 1
    assert abs(len(split.held_out) - fraction * len(rows)) <= 1


def test_a_holdout_depends_on_the_seed_and_not_on_the_shuffle_of_the_partition():
    rows = partition(STUDENTS, 2, seed=0)[0]
    held_out = [split_holdout(rows, seed=seed).held_out.tolist() for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]
    # With one hash for both, the held-out rows would be the first ones dealt.
    first_dealt = sorted(partition(STUDENTS, 10, seed=0)[0].tolist())
    assert held_out[0] != first_dealt


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(DataError, match="share"):
        split_holdout(np.arange(10), fraction)


def test_one_row_cannot_be_split():
    with pytest.raises(DataError, match="1 rows"):
        split_holdout(np.arange(1))


def test_the_pooled_split_holds_out_exactly_what_the_nodes_hold_out():
    splits = [split_holdout(part, seed=4) for part in partition(STUDENTS, 3, seed=4)]
    pooled = pool(splits)
    assert set(pooled.held_out) == {row for split in splits for row in split.held_out}
    assert set(pooled.train) == {row for split in splits for row in split.train}
    assert len(pooled.train) + len(pooled.held_out) == 60


def test_a_row_in_two_splits_is_refused():
    split = split_holdout(np.arange(5))
    with pytest.raises(DataError, match="more than one split"):
        pool([split, split])
    with pytest.raises(DataError, match="no splits"):
        pool([])
