"""What encrypted averaging must compute, written down a second time from the formulas alone."""

import math

import numpy as np
from tiny_app import SAMPLES, Weights, train_locally

MODULUS = 0x3FFFFFFFFED001


def largest_value(max_nodes: int, fields: int = 2) -> int:
    tau = 0
    while 43 * max_nodes * 2 ** (tau + 1) < MODULUS:
        tau += 1
    return (2 ** (tau // fields - 1) - 1) // max_nodes


def quantised_mean(
    base: Weights, trained: dict[int, Weights], *, clip: float, max_nodes: int
) -> Weights:
    """Return the next model: integers are summed, and divided once by all samples."""
    scale = math.floor(largest_value(max_nodes) / clip)
    largest = max(SAMPLES)
    total = sum(SAMPLES[index] for index in trained)
    model = {}
    for name, start in base.items():
        summed = np.zeros(start.shape, np.int64)
        for index, weights in trained.items():
            change = weights[name].astype(np.float64) - start.astype(np.float64)
            weight = scale * SAMPLES[index] / largest
            summed += np.rint(weight * np.clip(change, -clip, clip)).astype(np.int64)
        mean = summed.astype(np.float64) * (largest / (scale * total))
        model[name] = (start.astype(np.float64) + mean).astype(np.float32)
    return model


def plain_mean(base: Weights, trained: dict[int, Weights]) -> Weights:
    """Return FedAvg's own weighted mean."""
    total = sum(SAMPLES[index] for index in trained)
    return {
        name: sum(SAMPLES[index] / total * w[name].astype(float) for index, w in trained.items())
        for name in base
    }


def quantised_run(
    initial: Weights,
    nodes: list[int],
    rounds: int,
    *,
    clip: float,
    max_nodes: int,
    proximal_mu: float = 0.0,
) -> list[Weights]:
    """Return the models of all rounds, the initial one first."""
    models = [initial]
    for _ in range(rounds):
        trained = {i: train_locally(models[-1], i, proximal_mu=proximal_mu) for i in nodes}
        models.append(quantised_mean(models[-1], trained, clip=clip, max_nodes=max_nodes))
    return models
