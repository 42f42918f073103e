"""The formulas that keep sums exact, and the strict form they travel in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy_factories import bfv, plaintext

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


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="bfv, one-time-key, plaintext"):
        AdditiveParameters.derive("rot13", 3)


def test_parameters_survive_a_trip_through_json():
    p = bfv(23)
    assert AdditiveParameters.from_dict(p.to_dict()) == p
    assert p.identifier == AdditiveParameters.from_dict(p.to_dict()).identifier


@pytest.mark.parametrize("name", sorted(bfv().to_dict()))
def test_any_changed_or_missing_entry_is_refused(name):
    data = bfv().to_dict()
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
        for b in ("bfv", "plaintext")
        for n in (3, 4)
        for k in (1, 2)
    }
    assert len(made) == 8
