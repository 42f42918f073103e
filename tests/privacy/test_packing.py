"""Packing adds field by field, up to the last allowed input and not one beyond."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy_factories import bfv

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy.packing import pack, unpack

shapes = st.tuples(st.integers(1, 60), st.integers(1, 4), st.integers(1, 17))


@given(shapes, st.data())
def test_the_sum_of_packed_vectors_unpacks_to_the_sum_of_the_vectors(shape, data):
    nodes, fields, size = shape
    p = bfv(nodes, fields)
    value = st.one_of(st.sampled_from([-p.limit, p.limit, 0, -1]), st.integers(-p.limit, p.limit))
    count = data.draw(st.integers(1, nodes))
    vectors = data.draw(
        st.lists(st.lists(value, min_size=size, max_size=size), min_size=count, max_size=count)
    )
    total = sum(pack(np.array(v, np.int64), p) for v in vectors)
    opened = unpack(total, size, p, contributors=count)
    assert opened.tolist() == [sum(column) for column in zip(*vectors, strict=True)]


@given(shapes, st.lists(st.sampled_from([-1, 1]), min_size=17, max_size=17))
def test_the_largest_inputs_of_all_nodes_do_not_wrap(shape, signs):
    nodes, fields, size = shape
    p = bfv(nodes, fields)
    values = p.limit * np.array(signs[:size], np.int64)
    total = nodes * pack(values, p)
    assert int(np.abs(total).max()) < 1 << (p.plain_bits - 1)
    assert unpack(total, size, p, contributors=nodes).tolist() == (nodes * values).tolist()


@given(shapes, st.sampled_from([-1, 1]))
def test_one_beyond_the_limit_is_refused_by_its_index(shape, sign):
    nodes, fields, size = shape
    p = bfv(nodes, fields)
    values = np.full(size, p.limit, np.int64)
    values[::2] = -p.limit
    values[size - 1] = sign * (p.limit + 1)
    with pytest.raises(HeadroomError, match=f"Value {size - 1} is"):
        pack(values, p)


def test_the_smallest_int64_is_refused_though_it_has_no_magnitude():
    with pytest.raises(HeadroomError):
        pack(np.array([np.iinfo(np.int64).min]), bfv())


def test_field_f_of_coefficient_j_is_value_f_times_c_plus_j():
    p = bfv(10, 2)
    assert pack(np.array([1, 2, 3, 4, -5]), p).tolist() == [
        1 + (4 << p.width),
        2 + (-5 << p.width),
        3,
    ]


def test_a_sum_outside_what_that_many_nodes_can_reach_is_refused():
    p = bfv(10, 2)
    two = 2 * pack(np.array([p.limit, 0]), p)
    assert unpack(two, 2, p, contributors=2).tolist() == [2 * p.limit, 0]
    with pytest.raises(PrivacyError, match="not one of 1 updates"):
        unpack(two, 2, p, contributors=1)


def test_anything_in_the_padding_or_above_the_fields_is_refused():
    p = bfv(10, 2)
    padded = pack(np.array([1, 2, 3]), p)
    padded[1] += 1 << p.width
    with pytest.raises(PrivacyError, match="not one of"):
        unpack(padded, 3, p, contributors=10)
    above = pack(np.array([1, 2]), p)
    above[0] += 1 << (2 * p.width)
    with pytest.raises(PrivacyError, match="not one of"):
        unpack(above, 2, p, contributors=10)


@pytest.mark.parametrize("contributors", [0, -1, 11])
def test_a_number_of_contributors_that_was_not_agreed_is_refused(contributors):
    p = bfv(10, 2)
    with pytest.raises(PrivacyError, match="outside the agreed"):
        unpack(pack(np.array([1]), p), 1, p, contributors=contributors)


def test_another_number_of_coefficients_is_refused():
    with pytest.raises(PrivacyError, match="do not carry"):
        unpack(np.zeros(3, np.int64), 8, bfv(), contributors=1)
