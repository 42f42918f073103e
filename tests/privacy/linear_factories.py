"""Models and rows of features of all sizes, and a whole exchange in one call."""

import numpy as np

from twopm_flower.privacy.linear_frame import parse_request
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_request import encrypt_rows, open_scores
from twopm_flower.privacy.linear_service import answer

MODEL = "0x" + "5a" * 32
MASK_SEED = bytes(range(32))


class LinearModel:
    """Random weights with their parameters, prepared."""

    def __init__(self, classes, features, policy="public", scale=0.3, seed=0, wide=4.0):
        rng = np.random.default_rng(seed)
        self.weight = rng.normal(0, scale, (classes, features)).astype(np.float32)
        self.bias = rng.normal(0, 1, classes).astype(np.float32)
        self.ranges = np.where(np.arange(features) % 20 == 0, wide, 1.0)
        self.parameters = LinearParameters.derive(self.weight, self.bias, self.ranges, policy)
        self.quantised = QuantisedLinear.of(self.weight, self.bias, self.parameters)
        self.prepared = PreparedLinear.of(self.quantised, self.parameters)
        self.mask_seed = MASK_SEED if policy == "secret" else None

    def rows(self, count, seed=1):
        rng = np.random.default_rng(seed)
        return rng.uniform(-1, 1, (count, len(self.ranges))) * self.ranges

    def encrypt(self, x, preset):
        return encrypt_rows(x, self.parameters, preset, model_digest=MODEL)

    def parse(self, data, max_rows=5000):
        return parse_request(data, self.parameters, model_digest=MODEL, max_rows=max_rows)

    def answer(self, data, **options):
        return answer(self.parse(data), self.prepared, self.mask_seed, **options)

    def predict(self, x, preset):
        data, key = self.encrypt(x, preset)
        return open_scores(self.answer(data), key)

    def exact(self, x):
        """The scores of the quantised model on quantised features, which have to open."""
        a, b = self.parameters.input_bits, self.parameters.weight_bits
        inputs = np.rint(np.ldexp(x, a)).astype(np.int64)
        scores = inputs @ self.quantised.weight.T + self.quantised.bias
        return np.ldexp(scores.astype(float), -(a + b))

    def plain(self, x):
        return x @ self.weight.T.astype(float) + self.bias
