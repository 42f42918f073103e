"""Encrypted predictions: what opens is exact, at all extremes, and answers tell no more."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_factories import MASK_SEED, MODEL, LinearModel

from twopm_flower.errors import BindingError, ConfigError, DataError, PrivacyError, RecordError
from twopm_flower.privacy import linear_numba, linear_request, linear_service
from twopm_flower.privacy.linear_frame import parse_response
from twopm_flower.privacy.linear_model import QuantisedLinear
from twopm_flower.privacy.linear_parameters import MOST_PROBABILITY_ERROR, LinearParameters
from twopm_flower.privacy.linear_request import encrypt_rows, open_scores
from twopm_flower.privacy.linear_service import (
    INPUT_ROWS,
    KEY_ROWS,
    answer,
    mask_commitment,
    mask_seed_for,
)
from twopm_flower.privacy.residues import MODULUS, add_mod, centred
from twopm_flower.privacy.sampling import WordStream, fresh_stream, uniform_rows
from twopm_flower.records.digest import tagged_digest

SHAPES = st.sampled_from([(1, 1), (1, 41), (5, 41), (3, 700), (30, 41), (1, 2048), (2, 1024)])


@pytest.fixture
def worst_noise(monkeypatch):
    """All noise of requests is as large as it can be, and of the sign that hurts most."""

    def worst(stream, count, coins=42):
        return np.full(count, coins * worst.sign, np.int64)

    worst.sign = 1
    monkeypatch.setattr(linear_request, "centred_binomial", worst)
    return worst


@settings(max_examples=12, deadline=None)
@given(
    shape=SHAPES,
    policy=st.sampled_from(["public", "secret"]),
    size=st.floats(0.001, 15),
    preset=st.sampled_from(["latency", "batch"]),
    seed=st.integers(0, 2**32),
)
def test_scores_open_as_exactly_those_of_the_quantised_model(shape, policy, size, preset, seed):
    model = LinearModel(*shape, policy, scale=size / shape[1], seed=seed)
    x = model.rows(1 if preset == "latency" else 35, seed)
    scores = model.predict(x, preset)
    assert np.array_equal(scores, model.exact(x))
    assert np.abs(scores - model.plain(x)).max() <= model.parameters.logit_error
    assert model.parameters.probability_error <= MOST_PROBABILITY_ERROR


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("preset", ["latency", "batch"])
@pytest.mark.parametrize("policy", ["public", "secret"])
@pytest.mark.parametrize("classes", [1, 5])
def test_no_honest_request_fails_at_the_ends_of_all_ranges(
    classes, policy, preset, sign, worst_noise
):
    model = LinearModel(classes, 41, policy, scale=0.2)
    worst_noise.sign = sign
    x = np.sign(model.weight[:1]) * model.ranges * sign
    assert np.array_equal(model.predict(x, preset), model.exact(x))


def test_noise_that_just_could_cross_to_the_next_score_is_never_allowed():
    # Of these weights the noise is known to the unit: 21 times the sum of their magnitudes.
    for features in (1, 41, 700):
        weight = np.full((1, features), 0.5 / features, np.float32)
        p = LinearParameters.derive(weight, np.zeros(1), np.ones(features), "public")
        largest = int(np.abs(QuantisedLinear.of(weight, [0], p).weight).sum())
        assert 1 << (p.guard_bits - 1) > 21 * largest
        assert p.noise >= 21 * largest


@pytest.mark.parametrize("policy", ["public", "secret"])
@pytest.mark.parametrize("classes", [1, 3])
def test_compiled_and_numpy_answers_are_the_same_bytes(classes, policy):
    model = LinearModel(classes, 41, policy)
    for preset, rows in (("latency", 1), ("batch", 1), ("batch", 2049)):
        data, _ = model.encrypt(model.rows(rows), preset)
        assert model.answer(data) == model.answer(data, ring=linear_numba)


def test_compiled_sums_are_exact_at_the_largest_weights_and_residues():
    q = 0x3FFFFFFFFED001
    residues = np.full((8, 3000), q - 1, np.uint64)
    residues[:, 7] = [0, 1, q // 2, 1 << 27, (1 << 27) - 1, q - 2, 5, q - 1]
    for sign in (-1, 1):
        weights = np.full((2, 8), sign * ((1 << 32) - 1), np.int64)
        expected = [
            [sum(int(w) * int(c) for w, c in zip(row, column, strict=True)) % q for row in weights]
            for column in residues.T[:10]
        ]
        for kernel in (linear_numba, linear_service.linear_numpy):
            assert kernel.weighted_sums(weights, residues).T[:10].tolist() == expected


def test_a_request_of_one_row_is_small_and_of_the_same_size_whatever_it_says():
    model = LinearModel(1, 41)
    sizes = {len(model.encrypt(x[None], "latency")[0]) for x in model.rows(5)}
    sizes |= {len(model.encrypt(np.zeros((1, 41)), "latency")[0])}
    assert sizes == {395}
    data, _ = model.encrypt(np.zeros((1, 41)), "latency")
    assert len(model.answer(data)) == 44 + 7 * 2049


def test_the_same_row_is_never_encrypted_alike():
    model = LinearModel(1, 41)
    x = np.zeros((1, 41))
    requests = [model.parse(model.encrypt(x, "latency")[0]) for _ in range(20)]
    assert len({r.seed for r in requests}) == 20
    assert len({r.c0.tobytes() for r in requests}) == 20
    values = np.concatenate([r.c0 for r in requests]).astype(float) / 2**54
    # Uniform residues have a mean of 1/2 with a deviation of 0.01.
    assert abs(values.mean() - 0.5) < 0.06


def test_a_key_of_another_request_opens_nothing():
    model = LinearModel(1, 41)
    data, key = model.encrypt(model.rows(300), "batch")
    _, other_key = model.encrypt(model.rows(300), "batch")
    with pytest.raises(BindingError, match="answers the request"):
        open_scores(model.answer(data), other_key)
    other_key.digest = key.digest
    with pytest.raises(PrivacyError, match="does not open"):
        open_scores(model.answer(data), other_key)


@pytest.mark.parametrize("policy", ["public", "secret"])
def test_a_batch_whose_polynomial_was_changed_does_not_open(policy):
    model = LinearModel(2, 41, policy)
    data, key = model.encrypt(model.rows(300), "batch")
    response = bytearray(model.answer(data))
    response[-9] ^= 4
    with pytest.raises(PrivacyError, match="does not open"):
        open_scores(bytes(response), key)


def test_an_answer_with_more_noise_than_an_honest_one_is_refused():
    model = LinearModel(1, 41)
    p = model.parameters
    data, key = model.encrypt(model.rows(1), "latency")
    response = bytearray(model.answer(data))
    honest = int.from_bytes(response[44:51], "little")
    half = 1 << (p.guard_bits - 1)
    response[44:51] = ((honest + half) % 0x3FFFFFFFFED001).to_bytes(7, "little")
    with pytest.raises(PrivacyError, match="does not open"):
        open_scores(bytes(response), key)


@pytest.mark.parametrize(("preset", "rows"), [("latency", 1), ("batch", 60)])
def test_every_coefficient_of_a_request_has_noise_of_its_own(preset, rows):
    model = LinearModel(30, 41)
    p = model.parameters
    data, key = model.encrypt(np.zeros((rows, 41)), preset)
    request = model.parse(data)
    a = uniform_rows(request.seed, 0, 1 if preset == "latency" else 41, INPUT_ROWS)
    masks = key.masks(a, linear_numba)
    opened = add_mod(request.c0.reshape(len(a), -1), masks[:, : request.c0.size // len(a)])
    noise = centred(opened)
    assert noise.size == (p.window if preset == "latency" else 41 * 60)
    # The standard deviation is 3.24.
    assert 2.9 < noise.std() < 3.6
    assert np.abs(noise).max() <= 21
    assert len(np.unique(noise, axis=0)) == len(noise)


def test_the_key_of_a_request_shows_itself_nowhere():
    model = LinearModel(1, 41)
    _, key = model.encrypt(model.rows(1), "latency")
    shown = f"{key} {key!r}"
    assert "redacted" in shown
    assert str(int(key._secret[0])) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[:, :-1], "not rows of 41 features"),
        (lambda x: x[0], "not rows of 41 features"),
        (lambda x: x[:0], "not rows of 41 features"),
        (lambda x: np.where(np.arange(41) == 7, np.nan, x), "Feature 7 of row 0 is not a finite"),
        (lambda x: np.where(np.arange(41) == 9, -np.inf, x), "Feature 9 of row 0 is not a finite"),
        (lambda x: np.where(np.arange(41) == 3, 1.2345, x), "Feature 3 of row 0 is out of the"),
        (lambda x: np.where(np.arange(41) == 5, -1e300, x), "Feature 5 of row 0 is out of the"),
        (lambda x: np.where(np.arange(41) == 5, 2.0**41, x), "Feature 5 of row 0 is out of the"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_their_values_not_told(change, said):
    model = LinearModel(1, 41)
    for preset in ("latency", "batch"):
        with pytest.raises(DataError, match=said) as caught:
            model.encrypt(change(model.rows(1)), preset)
        assert "1.2345" not in str(caught.value)
        assert "e+300" not in str(caught.value)


def test_several_rows_need_the_preset_batch():
    model = LinearModel(1, 41)
    with pytest.raises(DataError, match="takes one row, not 2"):
        model.encrypt(model.rows(2), "latency")
    with pytest.raises(DataError, match="no preset 'bulk'"):
        model.encrypt(model.rows(2), "bulk")


def test_a_masked_answer_is_the_same_for_the_same_seed_and_another_for_any_other():
    model = LinearModel(2, 41, "secret")
    for preset, rows in (("latency", 1), ("batch", 3)):
        data, key = model.encrypt(model.rows(rows), preset)
        request = model.parse(data)
        first = answer(request, model.prepared, MASK_SEED)
        again = answer(request, model.prepared, MASK_SEED)
        other = answer(request, model.prepared, bytes(32))
        assert first == again != other
        assert np.array_equal(open_scores(first, key), open_scores(other, key))


def test_each_polynomial_of_a_masked_answer_has_a_mask_of_its_own():
    model = LinearModel(2, 3, "secret")
    zero = np.zeros_like(model.weight)
    model.quantised = QuantisedLinear.of(zero, np.zeros(2), model.parameters)
    prepared = type(model.prepared).of(model.quantised, model.parameters)
    data, _ = model.encrypt(model.rows(2049), "batch")
    request = model.parse(data)
    response = parse_response(
        answer(request, prepared, MASK_SEED),
        model.parameters,
        preset="batch",
        rows=2049,
        digest=request.digest,
    )
    # Without weights nothing but the mask is left: what masks one score must mask no other.
    assert len({row.tobytes() for row in response.c1}) == len(response.c1)
    assert len(set(response.scores.ravel().tolist())) == response.scores.size


def test_each_polynomial_of_a_masked_row_has_a_mask_of_its_own():
    model = LinearModel(40, 3, "secret")
    quantised = QuantisedLinear.of(np.zeros((40, 3)), np.zeros(40), model.parameters)
    prepared = type(model.prepared).of(quantised, model.parameters)
    data, _ = model.encrypt(model.rows(1), "latency")
    request = model.parse(data)
    response = parse_response(
        answer(request, prepared, MASK_SEED),
        model.parameters,
        preset="latency",
        rows=1,
        digest=request.digest,
    )
    assert len({row.tobytes() for row in response.c1}) == len(response.c1) > 1


def test_both_halves_of_a_mask_have_noise_so_its_secret_cannot_be_solved_for():
    model = LinearModel(1, 3, "secret")
    p = model.parameters
    quantised = QuantisedLinear.of(np.zeros((1, 3)), np.zeros(1), p)
    data, _ = model.encrypt(np.zeros((p.block_rows, 3)), "batch")
    request = model.parse(data)
    request.public_key.setflags(write=True)
    request.public_key[:] = 0
    response = parse_response(
        answer(request, type(model.prepared).of(quantised, p), MASK_SEED),
        p,
        preset="batch",
        rows=p.block_rows,
        digest=request.digest,
    )
    # Neither weights nor key: what is left is a' u + e2, and e1 with the flood.
    words = WordStream(
        bytes.fromhex(tagged_digest("inference-mask-words/v1", MASK_SEED, bytes(8))[2:])
    )
    u = words.take(2048) % np.uint64(3)
    u = (u + np.uint64(MODULUS - 1)) % np.uint64(MODULUS)
    words.take(2 * 2048 + 2 * p.block_rows)
    flood = (words.take(p.block_rows) >> np.uint64(64 - p.flood_bits)).astype(np.int64)
    flood -= 1 << (p.flood_bits - 1)
    e1 = centred(response.scores[0]) - flood
    product = linear_numba.products(
        uniform_rows(request.key_seed, 0, 1, KEY_ROWS), linear_numba.transform(u[None])[0]
    )
    one = linear_numba.transform(np.eye(1, 2048, dtype=np.uint64))[0]
    e2 = centred(add_mod(linear_numba.products(response.c1.copy(), one), MODULUS - product))
    assert np.abs(e1).max() <= 21
    assert np.count_nonzero(e1) > p.block_rows // 2
    assert np.abs(e2).max() <= 21
    assert 2.9 < e2.std() < 3.6


def test_the_flood_hides_all_but_the_stated_bits_of_a_score():
    model = LinearModel(1, 3, "secret")
    p = model.parameters
    data, _ = model.encrypt(np.zeros((1, 3)), "latency")
    request = model.parse(data)
    # A requester that cheats: no key at all, so that only the flood and e1 are left of a mask.
    request.public_key.setflags(write=True)
    request.public_key[:] = 0
    flooded = []
    for number in range(240):
        seed = number.to_bytes(32, "big")
        response = parse_response(
            answer(request, model.prepared, seed, linear_numba),
            p,
            preset="latency",
            rows=1,
            digest=request.digest,
        )
        flooded.append(int(response.scores[0]))
    plain = linear_service._one_row(request, model.prepared, None, linear_numba)[0]
    q = 0x3FFFFFFFFED001
    noise = np.array([(value - int(plain[0]) + q // 2) % q - q // 2 for value in flooded])
    half = 1 << (p.flood_bits - 1)
    assert np.abs(noise).max() <= half + 21
    counts, _ = np.histogram(noise, bins=8, range=(-half, half))
    # 7 degrees of freedom and fixed seeds up to the e1 of a few units.
    assert ((counts - 30) ** 2 / 30).sum() < 35
    assert p.leaked_bits == p.rows * (54 - p.flood_bits)


@pytest.mark.parametrize(("classes", "features"), [(1, 41), (5, 41), (40, 3), (1, 2048)])
def test_no_more_scores_share_a_mask_than_leave_its_secret_unknown(classes, features):
    # A requester that makes up its public key reads 54 - F bits of the mask's secret by each.
    model = LinearModel(classes, features, "secret", scale=0.3 if features < 100 else 0.003)
    p = model.parameters
    data, _ = model.encrypt(model.rows(70), "batch")
    polynomials = (len(model.answer(data)) - 44 - 7 * 70 * p.rows) // (7 * 2048)
    assert 70 * p.rows / polynomials * (54 - p.flood_bits) <= 512
    assert p.rows / p.polynomials * (54 - p.flood_bits) <= 512
    with pytest.raises(RecordError, match=r"share a mask|go 19 times"):
        LinearParameters.from_dict({**p.to_dict(), "group": 19, "flood_bits": 22})


def test_secret_weights_get_more_flooding_than_precision():
    public, secret = LinearModel(1, 41), LinearModel(1, 41, "secret")
    assert public.parameters.flood_bits == 0
    assert secret.parameters.flood_bits >= 22
    assert secret.parameters.leaked_bits <= 32


def test_mask_seeds_follow_from_key_and_request_and_commitments_from_seeds():
    one, other = "0x" + "01" * 32, "0x" + "02" * 32
    assert mask_seed_for(b"k" * 32, one) == mask_seed_for(b"k" * 32, one)
    assert len({mask_seed_for(k, d) for k in (b"k" * 32, b"l" * 32) for d in (one, other)}) == 4
    assert mask_commitment(None) == "0x" + "00" * 32
    assert mask_commitment(MASK_SEED) != mask_commitment(bytes(32))


def test_a_mask_seed_is_given_for_secret_weights_and_for_no_others():
    public, secret = LinearModel(1, 3), LinearModel(1, 3, "secret")
    asked = public.parse(public.encrypt(public.rows(1), "latency")[0])
    with pytest.raises(PrivacyError, match="takes no mask seed"):
        answer(asked, public.prepared, MASK_SEED)
    hidden = secret.parse(secret.encrypt(secret.rows(1), "latency")[0])
    with pytest.raises(PrivacyError, match="takes a mask seed"):
        answer(hidden, secret.prepared, None)
    with pytest.raises(PrivacyError, match="has 32 bytes, not 5"):
        answer(hidden, secret.prepared, b"short")
    with pytest.raises(PrivacyError, match="other parameters"):
        answer(hidden, public.prepared, None)


def test_parameters_come_back_from_json_with_their_identifier():
    for policy in ("public", "secret"):
        parameters = LinearModel(3, 41, policy).parameters
        read = LinearParameters.from_dict(json.loads(json.dumps(parameters.to_dict())))
        assert read == parameters
        assert read.identifier == parameters.identifier
    assert LinearModel(3, 41).parameters.identifier != parameters.identifier


@pytest.mark.parametrize(
    "change",
    [
        {"policy": "open"},
        {"features": 42},
        {"features": 0},
        {"classes": 0},
        {"input_bits": 21},
        {"weight_bits": -1},
        {"guard_bits": 10},
        {"guard_bits": 40},
        {"flood_bits": 1},
        {"digits": 9},
        {"group": 2000},
        {"digit_sum": 1 << 30},
        {"score_limit": 1 << 50},
        {"score_limit": True},
        {"weight_sum": 1.5},
        {"limits": "all"},
        {"limits": [1, 2]},
        {"limits": [2**52] * 41},
        {"limits": ["1"] * 41},
        {"surprise": 1},
    ],
)
def test_parameters_under_which_requests_could_fail_are_refused(change):
    data = {**LinearModel(2, 41).parameters.to_dict(), **change}
    with pytest.raises(RecordError):
        LinearParameters.from_dict(data)


def test_parameters_that_lack_something_are_refused():
    data = LinearModel(2, 41).parameters.to_dict()
    del data["group"]
    with pytest.raises(RecordError, match="have the fields"):
        LinearParameters.from_dict(data)


@pytest.mark.parametrize(
    ("weight", "bias", "ranges", "said"),
    [
        (np.ones((1, 3)), np.ones(2), np.ones(3), "not those of a linear model"),
        (np.ones((1, 3)), np.ones(1), np.ones(2), "not those of a linear model"),
        (np.ones((1, 0)), np.ones(1), np.ones(0), "not those of a linear model"),
        (np.ones((1, 2049)), np.ones(1), np.ones(2049), "2049 features"),
        (np.full((1, 3), np.nan), np.ones(1), np.ones(3), "not finite"),
        (np.ones((1, 3)), np.ones(1), np.array([1, 0, 1]), "not a finite number above 0"),
        (np.full((1, 3), 1e9), np.ones(1), np.ones(3), "more than 1e-03"),
        (np.full((1, 3), 3e38), np.ones(1), np.ones(3), "more than 1e-03"),
        (np.ones((1, 3)), np.full(1, 3e38), np.ones(3), "more than 1e-03"),
        (np.ones((1, 3)), np.ones(1), np.full(3, 1e12), "more than 1e-03"),
    ],
)
def test_models_that_cannot_be_served_are_refused_with_a_reason(weight, bias, ranges, said):
    for policy in ("public", "secret"):
        with pytest.raises(ConfigError, match=said):
            LinearParameters.derive(weight, bias, ranges, policy)


def test_a_model_that_is_larger_than_its_parameters_is_refused():
    model = LinearModel(1, 41)
    with pytest.raises(PrivacyError, match="larger than the parameters"):
        QuantisedLinear.of(model.weight * 1.5, model.bias, model.parameters)
    with pytest.raises(PrivacyError, match="larger than the parameters"):
        QuantisedLinear.of(model.weight, model.bias + 1e30, model.parameters)
    with pytest.raises(PrivacyError, match="larger than the parameters"):
        QuantisedLinear.of(model.weight, model.bias + 50, model.parameters)
    with pytest.raises(PrivacyError, match="not those of"):
        QuantisedLinear.of(model.weight[:, 1:], model.bias, model.parameters)


def test_parameters_say_little_about_secret_weights():
    p = LinearModel(1, 41, "secret").parameters
    for value in (p.weight_sum, p.digit_sum, p.score_limit):
        assert bin(value).rstrip("0").count("1") <= 3
        assert len(bin(value)[2:].rstrip("0")) <= 3


def test_all_randomness_of_a_request_is_fresh():
    assert fresh_stream().take(4).tolist() != fresh_stream().take(4).tolist()
    model = LinearModel(1, 41, "secret")
    x = np.zeros((1, 41))
    requests = [
        model.parse(encrypt_rows(x, model.parameters, "latency", model_digest=MODEL)[0])
        for _ in range(3)
    ]
    assert len({r.key_seed for r in requests} | {r.seed for r in requests}) == 6
    assert len({r.public_key.tobytes() for r in requests}) == 3
