"""Any t holders open a sum, fewer learn nothing, and false shares are found and named."""

import os
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.errors import ConfigError, SharingError
from twopm_flower.privacy.share_field import PRIME, erase
from twopm_flower.privacy.sharing import (
    MAX_MEMBERS,
    SECRET_BOUND,
    add_shares,
    fewest_survivors,
    reconstruct,
    share_secret,
    threshold_for,
)

SIZE = 2048
seeds = st.integers(0, 2**32)


def a_secret(rng):
    return rng.integers(-SECRET_BOUND, SECRET_BOUND + 1, SIZE)


def a_share(rng):
    return rng.integers(0, PRIME, SIZE, dtype=np.uint32)


def words(*values):
    return np.array(values, "<u4").tobytes()


def naive_value(points, values, at):
    """Lagrange's formula, with Python's integers."""
    total = 0
    for x, row in zip(points, values, strict=True):
        weight = 1
        for y in points:
            if y != x:
                weight = weight * (at - y) * pow(x - y, -1, PRIME) % PRIME
        total = total + weight * row.astype(object)
    return total % PRIME


def naive_decoding(shares, threshold):
    """Every polynomial of the right degree that enough whole shares lie on, by trying all."""
    points, found = sorted(shares), {}
    for chosen in combinations(points, threshold):
        rows = [shares[x] for x in chosen]
        off = tuple(x for x in points if (naive_value(chosen, rows, x) != shares[x]).any())
        if len(off) <= (len(points) - threshold) // 2:
            secret = naive_value(chosen, rows, 0)
            found[off] = np.where(secret > PRIME // 2, secret - PRIME, secret).astype(np.int64)
    return found


# --- thresholds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "colluders", "threshold", "survivors"),
    [
        (10, 3, 7, 7),
        (4, 1, 3, 3),
        (3, 1, 3, 3),
        (2, 0, 2, 2),
        (100, 10, 56, 56),
        (780, 0, 391, 391),
    ],
)
def test_thresholds_are_those_of_the_design(members, colluders, threshold, survivors):
    assert threshold_for(members, colluders) == threshold
    assert fewest_survivors(threshold, colluders) == survivors


def test_a_survivor_is_never_alone_among_colluders():
    assert fewest_survivors(2, 1) == 3


@given(st.integers(0, 800), st.integers(-2, 800))
def test_a_threshold_is_safe_or_refused(members, colluders):
    # The conditions of the design, for every threshold that there could be.
    safe = [
        t
        for t in range(1, members + 1)
        if t == (members + colluders) // 2 + 1
        and 0 <= colluders <= min(t - 1, 2 * t - members - 1)
        and colluders + 2 <= members <= 780
    ]
    if safe:
        assert [threshold_for(members, colluders)] == safe
    else:
        with pytest.raises(ConfigError):
            threshold_for(members, colluders)


def test_an_impossible_number_of_colluders_comes_with_what_to_do():
    with pytest.raises(ConfigError, match="at least 5 members, or at most 2 colluders"):
        threshold_for(4, 3)
    with pytest.raises(ConfigError, match="780 members at most, not 781"):
        threshold_for(781, 1)
    with pytest.raises(ConfigError, match="Set the number of colluders to 0 or more"):
        threshold_for(4, -1)


# --- sharing and reconstructing ------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data(), seeds)
def test_any_t_of_n_shares_give_the_secret(data, seed):
    points = data.draw(
        st.lists(st.integers(1, MAX_MEMBERS), min_size=1, max_size=14, unique=True), "points"
    )
    threshold = data.draw(st.integers(1, len(points)), "threshold")
    chosen = data.draw(st.permutations(points))[: data.draw(st.integers(threshold, len(points)))]
    secret = a_secret(np.random.default_rng(seed))
    shares = share_secret(secret, points, threshold)
    found = reconstruct({point: shares[point] for point in chosen}, threshold)
    assert (found.secret == secret).all()
    assert found.secret.dtype == np.int64
    assert found.liars == ()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), seeds)
def test_sums_of_shares_are_shares_of_the_sum(members, seed):
    rng = np.random.default_rng(seed)
    secrets = [a_secret(rng) for _ in range(members)]
    points = range(1, members + 1)
    threshold = threshold_for(members, 0)
    dealt = [share_secret(secret, points, threshold) for secret in secrets]
    survivors = dealt[: threshold + 1]
    sums = {point: add_shares(shares[point] for shares in survivors) for point in points}
    found = reconstruct({point: sums[point] for point in points[-threshold:]}, threshold)
    assert (found.secret == sum(secrets[: len(survivors)])).all()


@pytest.mark.parametrize("coefficient", [-SECRET_BOUND, SECRET_BOUND])
def test_the_largest_sum_of_the_most_members_does_not_wrap(coefficient):
    share = share_secret(np.full(SIZE, coefficient), [5], 1)[5]
    total = add_shares([share] * MAX_MEMBERS)
    assert (reconstruct({5: total}, 1).secret == MAX_MEMBERS * coefficient).all()


def test_the_order_of_shares_changes_nothing():
    rng = np.random.default_rng(4)
    shares = share_secret(a_secret(rng), range(1, 11), 6) | {4: a_share(rng), 9: a_share(rng)}
    found = [reconstruct(dict(order), 6) for order in (shares.items(), [*shares.items()][::-1])]
    assert (found[0].secret == found[1].secret).all()
    assert found[0].liars == found[1].liars == (4, 9)


def test_shares_of_the_most_members_are_put_together():
    rng = np.random.default_rng(3)
    secret, threshold = a_secret(rng), threshold_for(MAX_MEMBERS, 380)
    shares = share_secret(secret, range(1, MAX_MEMBERS + 1), threshold)
    liars = tuple(range(2, MAX_MEMBERS, 9))[: (MAX_MEMBERS - threshold) // 2]
    for coordinate, liar in enumerate(liars):
        shares[liar][coordinate] = (shares[liar][coordinate] + 1) % PRIME
    found = reconstruct(shares, threshold)
    assert (found.secret == secret).all()
    assert found.liars == liars


# --- what fewer shares reveal --------------------------------------------------------------


def test_one_of_two_shares_is_the_same_for_every_secret():
    # All 65537 polynomials of each secret: every value of a share occurs exactly once.
    every = np.resize(np.arange(PRIME, dtype="<u4"), (33, SIZE))
    for value in (-SECRET_BOUND, 0, 17, SECRET_BOUND):
        secret = np.full(SIZE, value)
        dealt = [
            share_secret(secret, [1, 7, 780], 2, random_bytes=lambda _, row=row: row.tobytes())
            for row in every
        ]
        for point in (1, 7, 780):
            seen = np.concatenate([shares[point] for shares in dealt])[:PRIME]
            assert (np.sort(seen) == np.arange(PRIME)).all()


@pytest.mark.parametrize("threshold", [2, 3, 5])
def test_with_one_share_too_few_every_secret_stays_possible(threshold):
    secret = a_secret(np.random.default_rng(threshold))
    shares = share_secret(secret, range(1, threshold + 1), threshold)
    known = {point: shares[point] for point in range(1, threshold)}
    for candidate in (-SECRET_BOUND, 0, 1, SECRET_BOUND):
        # The last share that would make it so exists, and fits all that is known.
        last = naive_value(
            [0, *known], [np.full(SIZE, candidate % PRIME), *known.values()], threshold
        )
        completed = known | {threshold: last.astype(np.uint32)}
        found = reconstruct(completed, threshold)
        assert (found.secret == candidate).all()


def test_too_few_shares_say_nothing_and_that_they_are_too_few():
    secret = a_secret(np.random.default_rng(0))
    shares = share_secret(secret, range(1, 11), 7)
    six = {point: shares[point] for point in range(1, 7)}
    with pytest.raises(SharingError, match="6 shares were opened; 7 are needed"):
        reconstruct(six, 7)
    # A polynomial of a lower degree would have given the secret to six.
    assert (naive_value([*six], [*six.values()], 0) != secret % PRIME).sum() > SIZE - 50


def test_no_two_sharings_of_a_secret_have_a_share_in_common():
    secret = np.zeros(SIZE, np.int64)
    first, second = (share_secret(secret, range(1, 5), 3) for _ in range(2))
    for point in range(1, 5):
        assert (first[point] == second[point]).sum() < 20
        # Coefficients of a polynomial are independent of each other, too.
        assert len(np.unique(first[point])) > SIZE - 200


def test_the_word_that_would_make_small_values_likelier_is_drawn_again():
    asked = []

    def random_bytes(count):
        asked.append(count)
        if len(asked) == 1:
            return words(*[0xFFFFFFFF, PRIME, 0xFFFFFFFE] + [0] * (SIZE - 3))
        return words(0xFFFFFFFF if len(asked) == 2 else 1234)

    shares = share_secret(np.zeros(SIZE, np.int64), [1, 2], 2, random_bytes=random_bytes)
    assert asked == [4 * SIZE, 4, 4]
    assert list(shares[1][:4]) == [1234, 0, 65536, 0]


def test_a_share_keeps_no_other_alive_and_can_be_erased():
    shares = share_secret(a_secret(np.random.default_rng(1)), range(1, 5), 3)
    kept = shares[2].copy()
    assert all(share.base is None for share in shares.values())
    erase(shares[1], shares[3])
    assert not shares[1].any()
    assert not shares[3].any()
    assert (shares[2] == kept).all()


def test_a_sum_does_not_print_its_secret():
    secret = a_secret(np.random.default_rng(1))
    found = reconstruct(share_secret(secret, [1, 2], 2), 2)
    assert repr(found) == "Reconstruction(liars=())"


def test_reconstructing_leaves_the_shares_as_they_were():
    shares = share_secret(a_secret(np.random.default_rng(1)), range(1, 6), 3)
    before = {point: share.copy() for point, share in shares.items()}
    reconstruct(shares, 3)
    assert all((shares[point] == before[point]).all() for point in shares)


# --- false shares --------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data(), seeds)
def test_as_many_liars_as_can_be_found_are_named_however_they_lie(data, seed):
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(2, 14), "shares")
    threshold = data.draw(st.integers(1, count), "threshold")
    points = sorted(data.draw(st.permutations(range(1, 30)))[:count])
    liars = tuple(sorted(data.draw(st.permutations(points))[: (count - threshold) // 2]))
    manner = data.draw(
        st.sampled_from(["anything", "one coordinate", "each its own", "conspiring", "opposite"])
    )
    secret = a_secret(rng)
    shares = share_secret(secret, points, threshold)
    other = share_secret(a_secret(rng), points, threshold)
    for index, liar in enumerate(liars):
        false = shares[liar].astype(np.int64)
        if manner == "anything":
            false = a_share(rng)
        elif manner == "one coordinate":
            false[77] += 1
        elif manner == "each its own":
            false[index] -= 1
        elif manner == "conspiring":
            false = other[liar]
        else:
            false[:2] += (1, -1)
        shares[liar] = (false % PRIME).astype(np.uint32)
    found = reconstruct(shares, threshold)
    assert found.liars == liars
    assert (found.secret == secret).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), seeds)
def test_decoding_agrees_with_trying_every_set_of_shares(data, seed):
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(2, 7), "shares")
    threshold = data.draw(st.integers(1, min(count, 4)), "threshold")
    points = sorted(data.draw(st.permutations(range(1, 20)))[:count])
    shares = share_secret(a_secret(rng), points, threshold)
    other = share_secret(a_secret(rng), points, threshold)
    for point in points:
        kind = data.draw(st.sampled_from(["true", "true", "other", "one", "random"]))
        if kind == "other":
            shares[point] = other[point]
        elif kind == "one":
            shares[point][data.draw(st.integers(0, 3))] = data.draw(st.integers(0, PRIME - 1))
        elif kind == "random":
            shares[point] = a_share(rng)
    expected = naive_decoding(shares, threshold)
    assert len(expected) <= 1
    if not expected:
        with pytest.raises(SharingError, match="do not agree"):
            reconstruct(shares, threshold)
        return
    ((liars, secret),) = expected.items()
    if abs(secret).max() > SECRET_BOUND * MAX_MEMBERS:
        with pytest.raises(SharingError, match="no sum of 780 keys"):
            reconstruct(shares, threshold)
        return
    found = reconstruct(shares, threshold)
    assert found.liars == liars
    assert (found.secret == secret).all()


@pytest.mark.parametrize(("count", "threshold"), [(8, 7), (10, 7), (11, 7), (10, 4)])
def test_one_liar_more_is_refused_with_the_numbers(count, threshold):
    findable = (count - threshold) // 2
    rng = np.random.default_rng(count)
    shares = share_secret(a_secret(rng), range(1, count + 1), threshold)
    for liar in range(1, findable + 2):
        # A single coordinate each, so that no coordinate has too many by itself.
        shares[liar][liar] = (shares[liar][liar] + 1) % PRIME
    refusal = f"The {count} opened .* {threshold} determine .* up to {findable} false"
    # With zeros for random numbers they would be found one after the other.
    for random_bytes in (os.urandom, bytes):
        with pytest.raises(SharingError, match=refusal):
            reconstruct(shares, threshold, random_bytes=random_bytes)


@pytest.mark.parametrize("scapegoat", [None, 7])
@pytest.mark.parametrize("liars", [(2, 5), (1, 6, 9), (3, 4, 10, 13)])
def test_liars_whose_lies_look_like_none_or_like_another_s_are_found(liars, scapegoat):
    secret = a_secret(np.random.default_rng(1))
    threshold = 5
    points = range(1, threshold + 2 * len(liars) + 1)
    shares = share_secret(secret, points, threshold)
    for liar in liars:
        # Chosen so that the first syndromes are zero, or those of one lie of the scapegoat.
        factors = [liar - point for point in points if point not in liars]
        if scapegoat is not None:
            factors += [scapegoat - other for other in liars if other != liar]
        lie = 1
        for factor in factors:
            lie = lie * factor % PRIME
        shares[liar] = ((shares[liar].astype(np.int64) + lie) % PRIME).astype(np.uint32)
    found = reconstruct(shares, threshold)
    assert (found.secret == secret).all()
    assert found.liars == liars


def test_conspirators_who_know_the_other_shares_pass_only_if_they_are_one_more():
    # 10 shares, t = 4, 3 findable: the false line goes through 3 honest shares as well.
    secret = a_secret(np.random.default_rng(2))
    shares = share_secret(secret, range(1, 11), 4)
    line = [0, 8, 9, 10]
    values = [np.full(SIZE, 13), *(shares[x] for x in line[1:])]
    for liar in (1, 2, 3):
        shares[liar] = naive_value(line, values, liar).astype(np.uint32)
    found = reconstruct(shares, 4)
    assert (found.secret == secret).all()
    assert found.liars == (1, 2, 3)
    # Now 7 of 10 are on the false line, so only its secret lacks no more than 3.
    shares[4] = naive_value(line, values, 4).astype(np.uint32)
    found = reconstruct(shares, 4)
    assert (found.secret == 13).all()
    assert found.liars == (5, 6, 7)


@pytest.mark.parametrize(
    "random_bytes", [bytes, lambda count: b"\1\0\0\0" * (count // 4)], ids=["zeros", "ones"]
)
def test_even_liars_who_foresee_chance_change_nothing(random_bytes):
    secret = a_secret(np.random.default_rng(6))
    shares = share_secret(secret, range(1, 12), 5)
    for liar in (2, 3, 11):
        # These cancel in the sum of all coordinates, and the last liar lies in the first ones.
        lies = slice(30 - 2 * liar, 32 - 2 * liar)
        shares[liar][lies] = (shares[liar][lies] + np.array([1, PRIME - 1], np.uint32)) % PRIME
    found = reconstruct(shares, 5, random_bytes=random_bytes)
    assert (found.secret == secret).all()
    assert found.liars == (2, 3, 11)


def test_a_lie_that_nothing_contradicts_still_adds_up_to_no_keys():
    # As many shares as determine the secret: no share is checked by another one.
    rng = np.random.default_rng(8)
    secrets = [a_secret(rng) for _ in range(3)]
    dealt = [share_secret(secret, [1, 2, 3], 3) for secret in secrets]
    sums = {point: add_shares(shares[point] for shares in dealt) for point in (1, 2, 3)}
    assert (reconstruct(sums, 3, summands=3).secret == sum(secrets)).all()
    sums[2][70] = (sums[2][70] + 12345) % PRIME
    with pytest.raises(SharingError, match="no sum of 3 keys: more than 0 of them are false"):
        reconstruct(sums, 3, summands=3)


@pytest.mark.parametrize("value", [3 * SECRET_BOUND, -3 * SECRET_BOUND])
def test_the_largest_sum_of_keys_is_one_and_the_next_is_none(value):
    share = np.full(SIZE, value % PRIME, np.uint32)
    assert (reconstruct({4: share}, 1, summands=3).secret == value).all()
    share[2000] = (value + np.sign(value)) % PRIME
    with pytest.raises(SharingError, match="no sum of 3 keys"):
        reconstruct({4: share}, 1, summands=3)


def test_a_dealer_whose_shares_do_not_fit_is_as_good_as_a_liar():
    rng = np.random.default_rng(5)
    secrets = [a_secret(rng) for _ in range(3)]
    dealt = [share_secret(secret, range(1, 6), 3) for secret in secrets]
    dealt[0][2] = a_share(rng)
    sums = {point: add_shares(shares[point] for shares in dealt) for point in range(1, 6)}
    found = reconstruct(sums, 3)
    assert found.liars == (2,)
    assert (found.secret == sum(secrets)).all()


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("points", [[0, 1], [1, 1], [1, MAX_MEMBERS + 1], [-1, 2], [PRIME, 1]])
def test_points_that_would_give_the_secret_away_or_clash_are_refused(points):
    with pytest.raises(SharingError, match="distinct and from 1 to 780"):
        share_secret(np.zeros(SIZE, np.int64), points, 2)


def test_opened_shares_at_no_member_s_point_are_refused():
    share = np.zeros(SIZE, np.uint32)
    for point in (0, MAX_MEMBERS + 1):
        with pytest.raises(SharingError, match="distinct and from 1 to 780"):
            reconstruct({point: share, 1: share}, 2)


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_a_threshold_that_nobody_or_everybody_reaches_is_refused(threshold):
    with pytest.raises(SharingError, match=f"{threshold} shares are to open a secret"):
        share_secret(np.zeros(SIZE, np.int64), [1, 2, 3], threshold)


def test_a_threshold_below_one_opens_nothing():
    with pytest.raises(SharingError, match="0 are needed"):
        reconstruct({1: np.zeros(SIZE, np.uint32)}, 0)


@pytest.mark.parametrize("value", [SECRET_BOUND + 1, -SECRET_BOUND - 1])
def test_a_secret_that_could_wrap_in_a_sum_is_refused_and_not_shown(value):
    secret = np.zeros(SIZE, np.int64)
    secret[9] = value
    with pytest.raises(SharingError, match="beyond 42; nothing was shared out") as caught:
        share_secret(secret, [1, 2], 2)
    assert str(value) not in str(caught.value).replace("beyond 42", "")


@pytest.mark.parametrize(
    "secret", [np.zeros(SIZE - 1, np.int64), np.zeros(SIZE, np.int32), np.zeros((1, SIZE), int)]
)
def test_a_secret_of_another_shape_or_type_is_refused(secret):
    with pytest.raises(SharingError, match="A secret is 2048 int64 values"):
        share_secret(secret, [1, 2], 2)


@pytest.mark.parametrize(
    ("share", "why"),
    [
        (np.zeros(SIZE + 1, np.uint32), "2048 uint32 values"),
        (np.zeros(SIZE, np.int64), "2048 uint32 values"),
        (np.full(SIZE, PRIME, np.uint32), "Value 0 of a share is not below 65537"),
    ],
)
def test_what_is_no_share_is_neither_added_nor_opened(share, why):
    good = np.zeros(SIZE, np.uint32)
    with pytest.raises(SharingError, match=why):
        add_shares([good, share])
    with pytest.raises(SharingError, match=why):
        reconstruct({1: good, 2: share}, 2)


def test_no_shares_or_too_many_are_not_added():
    with pytest.raises(SharingError, match="0 shares cannot be added"):
        add_shares([])
    with pytest.raises(SharingError, match="781 shares cannot be added"):
        add_shares([np.zeros(SIZE, np.uint32)] * (MAX_MEMBERS + 1))
