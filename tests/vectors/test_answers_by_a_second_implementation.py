"""The stored answers again, from docs/protocol.md alone: nothing of the package is imported.

Whoever has request, weights and mask seed can write as much to convict a service.
"""

import pytest
from second_implementation import Q, h, json_digest, tagged, vectors
from test_one_time_keys_by_a_second_implementation import N, inverse_ntt, ntt, words

CODES = {"latency": 1, "batch": 2, "public": 1, "secret": 2}


def frame(magic, case, *parts):
    start = magic + (1).to_bytes(2, "little")
    codes = bytes([CODES[case["preset"]], CODES[case["parameters"]["policy"]]])
    return start + codes + b"".join(parts)


def residues(values):
    return b"".join(value.to_bytes(7, "little") for value in values)


def grown(purpose, seed, row):
    key = h(tagged(f"{purpose}/v1", seed))
    values = [word % 2**54 for word in words(key, N, N * row)]
    assert max(values) < Q, "a vector that needs spare words would have to be handled"
    return values


def digits(value, count, bits):
    out = []
    for _ in range(count - 1):
        low = (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        out.append(low)
        value = (value - low) >> bits
    return [*out, value]


def digit_rows(case):
    """Rows of digits of the weights, and of the biases with them, a class's together."""
    p = case["parameters"]
    bits = -(-p["weight_bits"] // p["digits"])
    rows, added = [], []
    for weight, bias in zip(case["weight"], case["bias"], strict=True):
        taken = [digits(round(w * 2 ** p["weight_bits"]), p["digits"], bits) for w in weight]
        rows += [list(row) for row in zip(*taken, strict=True)]
        whole = round(bias * 2 ** (p["input_bits"] + p["weight_bits"]))
        added += digits(whole, p["digits"], bits)
    return rows, [(b << p["guard_bits"]) % Q for b in added]


def pointwise(one, other):
    return [a * b % Q for a, b in zip(one, other, strict=True)]


def sums(*rows):
    return [sum(values) % Q for values in zip(*rows, strict=True)]


def mask(case, number, positions):
    """The coefficients of an encryption of zero at some positions, and values of its rest."""
    key = h(tagged("inference-mask-words/v1", h(case["mask_seed"]) + number.to_bytes(8, "little")))
    count = len(positions)
    stream = iter(words(key, N + 2 * N + 2 * count + count))

    def binomial(size):
        ones = [(next(stream) % 2**21).bit_count() for _ in range(2 * size)]
        return [ones[2 * i] - ones[2 * i + 1] for i in range(size)]

    u = ntt([(next(stream) % 3 - 1) % Q for _ in range(N)])
    e2, e1 = binomial(N), binomial(count)
    bits = case["parameters"]["flood_bits"]
    flood = [(next(stream) >> (64 - bits)) - 2 ** (bits - 1) for _ in range(count)]
    product = inverse_ntt([int(case["public_key_each"]) * value % Q for value in u])
    hidden = [(product[k] + e + f) % Q for k, e, f in zip(positions, e1, flood, strict=True)]
    a = grown("inference-key-a", h(case["key_seed"]), 0)
    return hidden, sums(pointwise(a, u), ntt([value % Q for value in e2]))


def latency(case, rows, added):
    p, d = case["parameters"], case["parameters"]["features"]
    c0, a = [int(value) for value in case["c0"]], grown("inference-a", h(case["seed"]), 0)
    scores, polynomials = [], []
    for first in range(0, len(rows), p["group"]):
        carried = rows[first : first + p["group"]]
        polynomial = [0] * N
        for k, row in enumerate(carried):
            for i, weight in enumerate(row):
                polynomial[k * d + d - 1 - i] = weight % Q
        positions = [(p["group"] - 1) * d + d - 1 + k * d for k in range(len(carried))]
        found = [
            sum(c * polynomial[k - j] for j, c in enumerate(c0) if k - j >= 0) + added[first + n]
            for n, k in enumerate(positions)
        ]
        rest = pointwise(a, ntt(polynomial))
        if case["mask_seed"]:
            hidden, hiding = mask(case, first // p["group"], positions)
            found, rest = sums(found, hidden), sums(rest, hiding)
        scores += [value % Q for value in found]
        polynomials += rest
    return scores, polynomials


def batch(case, rows, added):
    d, count = case["parameters"]["features"], case["rows"]
    c0 = [int(value) for value in case["c0"]]
    features = [c0[i * count : (i + 1) * count] for i in range(d)]
    a = [grown("inference-a", h(case["seed"]), i) for i in range(d)]
    scores, polynomials = [], []
    for number, (row, plus) in enumerate(zip(rows, added, strict=True)):
        weighted = [[w * c % Q for c in feature] for w, feature in zip(row, features, strict=True)]
        found = [(value + plus) % Q for value in sums(*weighted)]
        rest = sums(*([w * value % Q for value in line] for w, line in zip(row, a, strict=True)))
        if case["mask_seed"]:
            hidden, hiding = mask(case, number, range(count))
            found, rest = sums(found, hidden), sums(rest, hiding)
        scores += found
        polynomials += rest
    return scores, polynomials


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_answer_follows_from_request_weights_and_mask_seed(number):
    case = vectors("answers")[number]
    assert json_digest("linear-parameters/v1", case["parameters"]) == case["parameters_id"]
    rows = case["rows"].to_bytes(4, "little")
    key = b""
    if case["key_seed"]:
        key = h(case["key_seed"]) + residues([int(case["public_key_each"])] * N)
        assert tagged("inference-mask/v1", h(case["mask_seed"])) == case["mask_commitment"]
    bound = h(case["parameters_id"]) + h(case["model_digest"]) + rows + h(case["seed"])
    request = frame(b"2PMQ", case, bound, key, residues(map(int, case["c0"])))
    digest = tagged("inference-request/v1", request)
    assert digest == case["request_digest"]
    answered = latency if case["preset"] == "latency" else batch
    scores, polynomials = answered(case, *digit_rows(case))
    assert [str(value) for value in scores] == case["scores"]
    response = frame(b"2PMS", case, h(digest), rows, residues(scores), residues(polynomials))
    assert tagged("inference-response/v1", response) == case["response_digest"]
