"""The updates that every design encrypts: the same in every process, from a fixed seed.

This file and `worker` run in a peer's environment too, so they import nothing but numpy.
"""

from math import isqrt

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]
Means = dict[str, npt.NDArray[np.float64]]

CLIP = 0.25
"""No value of an update is larger, so that no design has to clip."""

MAX_SAMPLES = 1000

_LINEAR_BELOW = 1000
_DEEP_FROM = 100_000
_OUTPUTS = 10
_SPREAD = 0.05


def layers(size: int) -> dict[str, int]:
    """Return the names and sizes of the arrays of a model of `size` parameters.

    Below 1000 parameters it is a linear model with weights and a bias; from there on a
    perceptron with ten outputs and one hidden layer, and with three from 100,000 on. Peers
    encrypt array by array, so that their cost grows with the number of arrays: most networks
    of such sizes have more.
    """
    if size < _LINEAR_BELOW:
        return {"weight": size - 1, "bias": 1}
    hidden = isqrt(size) // 3
    found = {"input.weight": 0, "input.bias": hidden}
    if size >= _DEEP_FROM:
        for name in ("second", "third"):
            found |= {f"{name}.weight": hidden * hidden, f"{name}.bias": hidden}
    found |= {"output.weight": _OUTPUTS * hidden, "output.bias": _OUTPUTS}
    found["input.weight"] = size - sum(found.values())
    return found


def update(size: int, node: int, seed: int) -> Arrays:
    """Return one node's update: normal values of spread 0.05, within ±`CLIP`."""
    values = np.random.default_rng([seed, node]).standard_normal(size, np.float32)
    values *= np.float32(_SPREAD)
    np.clip(values, -CLIP, CLIP, out=values)
    arrays: Arrays = {}
    start = 0
    for name, length in layers(size).items():
        arrays[name] = values[start : start + length]
        start += length
    return arrays


def samples(node: int) -> int:
    """Return how many training rows a node has: each another number, up to `MAX_SAMPLES`."""
    return MAX_SAMPLES - 37 * (node % 20)


def mean(size: int, nodes: int, seed: int) -> Means:
    """Return the exact mean of all updates, weighted by the nodes' rows."""
    total = {name: np.zeros(length) for name, length in layers(size).items()}
    for node in range(nodes):
        for name, array in update(size, node, seed).items():
            total[name] += array.astype(np.float64) * samples(node)
    rows = sum(samples(node) for node in range(nodes))
    return {name: array / rows for name, array in total.items()}
