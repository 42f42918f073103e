"""The formulas that keep sums exact, and the strict form they travel in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy_factories import bfv, one_time, plaintext

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.residues import MODULUS


@given(st.integers(1, 5000), st.integers(1, 4))
def test_noise_and_fields_of_all_nodes_together_never_overflow(nodes, fields):
    try:
        p = AdditiveParameters.derive("bfv", nodes, fields)
    except ConfigError:
        return
    t = 1 << p.plain_bits
    assert 43 * nodes * t < MODULUS <= 43 * nodes * 2 * t
    assert p.width * fields <= p.plain_bits < (p.width + 1) * fields
    assert nodes * p.limit <= 2 ** (p.width - 1) - 1 < nodes * (p.limit + 1)


def test_the_figures_of_a_hundred_nodes_are_the_published_ones():
    p = bfv(100)
    assert (p.plain_bits, p.width, p.limit) == (41, 20, 5242)
    assert (p.ring_degree, p.modulus) == (2048, 0x3FFFFFFFFED001)


def test_the_plaintext_backend_has_the_same_numbers_under_another_name():
    assert {**bfv(7).to_dict(), "backend": "plaintext"} == plaintext(7).to_dict()
    assert bfv(7).identifier != plaintext(7).identifier


@given(st.integers(1, 780), st.integers(1, 3))
def test_under_one_time_keys_noise_and_fields_never_overflow_either(nodes, fields):
    p = one_time(nodes, fields)
    assert 2**p.guard_bits >= 84 * nodes + 1 > 2 ** (p.guard_bits - 1)
    assert p.guard_bits + p.plain_bits == 54
    assert p.width * fields <= p.plain_bits < (p.width + 1) * fields
    largest = p.limit * sum(2 ** (f * p.width) for f in range(fields))
    assert p.largest_coefficient == largest
    assert 2**p.guard_bits * nodes * largest + 42 * nodes <= (MODULUS - 1) // 2
    whole = 2 ** (p.width - 1) - 1
    assert nodes * p.limit <= whole
    if fields > 1:
        assert p.limit == whole // nodes
    else:
        # The modulus is a little below 2**54, which takes less than a part in 2**28.
        assert (whole // nodes - p.limit) * 2**28 <= whole // nodes + 2**28


@pytest.mark.parametrize(
    ("nodes", "guard_bits", "limit"), [(10, 10, 209_715), (50, 13, 10_485), (100, 14, 5_242)]
)
def test_the_limits_of_one_time_keys_are_the_published_ones(nodes, guard_bits, limit):
    p = one_time(nodes)
    assert (p.guard_bits, p.limit) == (guard_bits, limit)


def test_the_guard_bits_of_other_backends_are_their_own_matter_and_change_no_identifier():
    assert bfv().guard_bits == plaintext().guard_bits == 0
    assert "guard_bits" not in one_time().to_dict()
    assert bfv().identifier == "0x96af540790a417a003771e246fb192e775e332d61445b4e014a537c2c671bf6c"
    assert (
        plaintext().identifier
        == "0xcec16c393bfc9d70cf838d5225d3149baa5a2ae7cf66e88b74459da6f7bc407e"
    )


def test_one_time_keys_send_a_zero_with_each_row_and_no_row_of_c1():
    p = one_time(10, 2)
    sizes = (1, 2, 4094, 4095, 8188, 8189)
    assert [p.wire_coefficients(size) for size in sizes] == [2, 2, 2048, 2050, 4096, 4098]
    assert p.rows(10**6) == 0
    for other in (bfv(), plaintext()):
        assert other.wire_coefficients(8189) == other.coefficients(8189) == 4095


def test_coefficients_and_rows_round_up():
    p = bfv(10, 2)
    assert [p.coefficients(d) for d in (1, 2, 3, 41)] == [1, 1, 2, 21]
    assert [p.rows(d) for d in (1, 4096, 4097)] == [1, 1, 2]
    assert plaintext().rows(4097) == 0


@pytest.mark.parametrize(
    ("nodes", "fields"), [(0, 2), (-1, 2), (3, 0), (3, 40), (2**45, 1), (3, 100)]
)
def test_numbers_that_leave_no_room_are_refused(nodes, fields):
    with pytest.raises(ConfigError):
        AdditiveParameters.derive("bfv", nodes, fields)
    with pytest.raises(ConfigError):
        AdditiveParameters.derive("one-time-key", nodes, fields)


def test_more_nodes_than_one_time_keys_can_be_shared_by_are_refused():
    assert one_time(780).limit == 336
    with pytest.raises(ConfigError, match="at most 780 nodes, not 781"):
        one_time(781)


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="bfv, one-time-key, plaintext"):
        AdditiveParameters.derive("rot13", 3)


@pytest.mark.parametrize("p", [bfv(23), one_time(23), one_time(10, 1), plaintext(23, 3)])
def test_parameters_survive_a_trip_through_json(p):
    assert AdditiveParameters.from_dict(p.to_dict()) == p
    assert p.identifier == AdditiveParameters.from_dict(p.to_dict()).identifier


@pytest.mark.parametrize("made", [bfv, one_time])
@pytest.mark.parametrize("name", sorted(bfv().to_dict()))
def test_any_changed_or_missing_entry_is_refused(name, made):
    data = made().to_dict()
    value = data[name]
    for wrong in (None, 1.0, True, "x", value + 1 if isinstance(value, int) else value + "0"):
        with pytest.raises(RecordError):
            # max_nodes and fields decide all others, so these must then disagree.
            AdditiveParameters.from_dict({**data, name: wrong})
    del data[name]
    with pytest.raises(RecordError):
        AdditiveParameters.from_dict(data)


def test_an_entry_too_many_is_refused():
    with pytest.raises(RecordError, match="extra"):
        AdditiveParameters.from_dict({**bfv().to_dict(), "extra": 1})


def test_every_parameter_enters_the_identifier():
    made = {
        AdditiveParameters.derive(b, n, k).identifier
        for b in ("bfv", "one-time-key", "plaintext")
        for n in (3, 4)
        for k in (1, 2)
    }
    assert len(made) == 12
