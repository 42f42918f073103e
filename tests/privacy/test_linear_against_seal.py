"""SEAL as the oracle of encrypted predictions: requests are ciphertexts, answers products."""

import numpy as np
import pytest
from linear_factories import LinearModel
from seal_oracle import by_seal, phase_by_seal, times_plain_by_seal

from twopm_flower.privacy.linear_frame import parse_response
from twopm_flower.privacy.linear_service import INPUT_ROWS, KEY_ROWS
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.sampling import uniform_rows

ZEROS = np.zeros(2048, np.uint64)


def secret_of(key):
    coefficients, _ = by_seal(key._secret, key._secret, ntt=True)
    signed = coefficients.astype(np.int64)
    return np.where(signed > 1, signed - MODULUS, signed)


def padded(residues):
    whole = ZEROS.copy()
    whole[: residues.size] = residues
    return whole


def response_of(model, data, preset, rows):
    digest = model.parse(data).digest
    return parse_response(
        model.answer(data), model.parameters, preset=preset, rows=rows, digest=digest
    )


@pytest.mark.parametrize(("classes", "features"), [(1, 41), (5, 41), (2, 1), (1, 2048)])
def test_a_request_of_one_row_is_seals_ciphertext_and_the_answer_its_product(classes, features):
    model = LinearModel(classes, features, scale=0.3 if features < 100 else 0.003)
    p = model.parameters
    x = model.rows(1)
    data, key = model.encrypt(x, "latency")
    c0 = padded(model.parse(data).c0)
    a = uniform_rows(model.parse(data).seed, 0, 1, INPUT_ROWS)[0]
    secret = secret_of(key)
    assert set(np.unique(secret)) == {-1, 0, 1}
    phase = phase_by_seal(c0, a, secret)[: p.window]
    carried = np.zeros(p.window, np.int64)
    carried[p.offset : p.offset + features] = np.rint(np.ldexp(x[0], p.input_bits))
    assert np.abs(phase - (carried << p.guard_bits)).max() <= 21

    response = response_of(model, data, "latency", 1)
    a_coefficients, _ = by_seal(a, a, ntt=True)
    for index, polynomial in enumerate(model.prepared.reversed_polynomials[:, ::-1]):
        b, c1 = times_plain_by_seal(c0, a_coefficients, polynomial)
        first = index * p.group
        scores = response.scores[first : first + p.group]
        bias = model.prepared.carried_bias[first : first + p.group]
        at = p.offset + features - 1 + features * np.arange(scores.size)
        assert np.array_equal(scores, (b[at] + bias) % np.uint64(MODULUS))
        assert np.array_equal(response.c1[index], by_seal(c1, c1, ntt=False)[0])


def test_a_batch_is_answered_with_seals_sums_of_products():
    model = LinearModel(2, 5)
    data, _ = model.encrypt(model.rows(2050), "batch")
    request = model.parse(data)
    response = response_of(model, data, "batch", 2050)
    rows = model.prepared.rows
    for block, used in enumerate([slice(0, 2048), slice(2048, 2050)]):
        a = uniform_rows(request.seed, block * 5, 5, INPUT_ROWS)
        for row in range(len(rows)):
            scores, c1 = np.zeros(2048, np.int64), np.zeros(2048, np.int64)
            for feature, weight in enumerate(rows[row]):
                given = padded(request.c0[feature, used])
                if weight:
                    b, product = times_plain_by_seal(given, a[feature], [abs(weight)])
                    # SEAL takes a single negative coefficient for a large positive one.
                    sign = np.sign(weight)
                    scores = (scores + sign * b.astype(np.int64)) % MODULUS
                    c1 = (c1 + sign * product.astype(np.int64)) % MODULUS
            count = used.stop - used.start
            carried = (scores + int(model.prepared.carried_bias[row])) % MODULUS
            assert np.array_equal(response.scores[row, used], carried[:count].astype(np.uint64))
            assert np.array_equal(response.c1[block * len(rows) + row], c1.astype(np.uint64))


def test_the_public_key_is_seals_and_a_masked_answer_opens_in_seal_within_the_flood():
    model = LinearModel(1, 41, "secret")
    p = model.parameters
    x = model.rows(1)
    data, key = model.encrypt(x, "latency")
    request, secret = model.parse(data), secret_of(key)
    a = uniform_rows(request.key_seed, 0, 1, KEY_ROWS)[0]
    coefficients, _ = by_seal(request.public_key, request.public_key, ntt=True)
    assert np.abs(phase_by_seal(coefficients, a, secret)).max() <= 21

    response = response_of(model, data, "latency", 1)
    position = p.offset + 40
    b = ZEROS.copy()
    b[position] = response.scores[0]
    phase = int(phase_by_seal(b, response.c1[0], secret)[position])
    score = round(float(np.ldexp(model.exact(x)[0, 0], p.input_bits + p.weight_bits)))
    noise = phase - (score << p.guard_bits)
    # Of this mask seed; without the flood the noise is 100 000 or so.
    assert 1_000_000 < abs(noise) <= p.noise
