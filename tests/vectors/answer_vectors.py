"""The vectors of answers to encrypted requests: small models, requests that nobody encrypted."""

import numpy as np

from twopm_flower.privacy.linear_frame import LinearRequest, parse_request, response_digest
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_service import answer, mask_commitment
from twopm_flower.privacy.residues import MODULUS

MODEL = "0x" + "03" * 32
WEIGHT = np.array([[0.5, -1.25, 2.0], [0.125, 3.0, -0.75]], np.float32)
BIAS = np.array([0.125, -0.5], np.float32)
RANGES = np.array([1.0, 1.0, 4.0])
EACH = 12_345_678_901_234_567 % MODULUS


def answers():
    """Answers to requests, with public and secret weights, of one row and of several.

    So that the file stays small, all values of a public key are the same number, and of the
    response there are its digest and the residues of its scores.
    """
    return [
        _answer("public", "latency", 1, 300),
        _answer("secret", "latency", 1, 100),
        _answer("secret", "batch", 2, 100),
    ]


def _answer(policy, preset, rows, scale):
    weight = WEIGHT * scale
    parameters = LinearParameters.derive(weight, BIAS, RANGES, policy)
    rng = np.random.default_rng(5)
    shape = (3, rows) if preset == "batch" else (parameters.window,)
    secret = policy == "secret"
    made = LinearRequest(
        preset=preset,
        rows=rows,
        parameters=parameters,
        model_digest=MODEL,
        seed=bytes(range(32)),
        c0=rng.integers(0, MODULUS, shape, dtype=np.uint64),
        key_seed=bytes(range(32, 64)) if secret else None,
        public_key=np.full(2048, EACH, np.uint64) if secret else None,
    )
    frame = made.to_bytes()
    request = parse_request(frame, parameters, model_digest=MODEL, max_rows=10)
    prepared = PreparedLinear.of(QuantisedLinear.of(weight, BIAS, parameters), parameters)
    seed = bytes(range(64, 96)) if secret else None
    response = answer(request, prepared, seed)
    scores = parameters.rows * rows
    body = np.frombuffer(response, np.uint8)[44 : 44 + 7 * scores].reshape(scores, 7)
    return {
        "preset": preset,
        "rows": rows,
        "weight": weight.tolist(),
        "bias": BIAS.tolist(),
        "parameters": parameters.to_dict(),
        "parameters_id": parameters.identifier,
        "model_digest": MODEL,
        "seed": made.seed.hex(),
        "key_seed": made.key_seed.hex() if secret else None,
        "public_key_each": str(EACH) if secret else None,
        "c0": [str(value) for value in made.c0.ravel().tolist()],
        "request_digest": request.digest,
        "mask_seed": seed.hex() if secret else None,
        "mask_commitment": mask_commitment(seed),
        "scores": [str(int.from_bytes(word.tobytes(), "little")) for word in body],
        "response_digest": response_digest(response),
    }
