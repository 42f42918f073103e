"""Small makers of the things that the privacy tests are about."""

import numpy as np

from twopm_flower.privacy.binding import FrameContext
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.residues import MODULUS

METRICS = (Metric("correct", 1, 1000), Metric("loss", 1000, 100.0))


def a_layout(size=41, metrics=METRICS):
    return Layout((("weight", (1, size - 1)), ("bias", (1,))), metrics)


def a_context(parameters, layout, **changes):
    values = {
        "task_id": "0x" + "11" * 32,
        "round": 3,
        "attempt": 1,
        "node": "0x" + "22" * 20,
        "key_id": "0x" + "33" * 32,
        "parameters_id": parameters.identifier,
        "layout_digest": layout.digest,
    }
    return FrameContext(**{**values, **changes})


def some_residues(rng, *shape):
    return rng.integers(0, MODULUS, shape, dtype=np.uint64)


def a_seeded(parameters, layout, seed=0):
    rng = np.random.default_rng(seed)
    rows = parameters.rows(layout.size)
    return SeededCiphertext(
        some_residues(rng, parameters.wire_coefficients(layout.size)),
        rng.integers(0, 256, (rows, 64), dtype=np.uint8),
    )


def a_ciphertext(parameters, layout, seed=0):
    rng = np.random.default_rng(seed)
    rows = parameters.rows(layout.size)
    return Ciphertext(
        some_residues(rng, parameters.wire_coefficients(layout.size)),
        some_residues(rng, rows, 2048),
    )


def bfv(max_nodes=10, fields=2):
    return AdditiveParameters.derive("bfv", max_nodes, fields)


def plaintext(max_nodes=10, fields=2):
    return AdditiveParameters.derive("plaintext", max_nodes, fields)


def one_time(max_nodes=10, fields=2):
    return AdditiveParameters.derive("one-time-key", max_nodes, fields)


def update_keys(backend, count, seed=bytes(32)):
    """The keys that `count` nodes encrypt with, and the one that opens their sum."""
    if backend.name != "one-time-key":
        key = backend.generate_key()
        return [key] * count, key
    keys = [OneTimeKey.fresh(seed) for _ in range(count)]
    return keys, OneTimeKey.of_sum(np.sum([key.secret for key in keys], axis=0), seed)
