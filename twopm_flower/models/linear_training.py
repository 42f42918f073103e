"""Gradient descent on a linear layer in PyTorch, with the same bytes for the same arguments."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from torch.optim.sgd import sgd

from twopm_flower.errors import DataError
from twopm_flower.models.base import Floats

MOMENTUM: Final = 0.9
"""Nesterov's, without which few steps do not get far along the columns that vary little."""


def train_linear(
    weight: Floats,
    bias: Floats,
    x: Floats,
    y: Floats,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    l2: float,
    seed: int,
    proximal_mu: float,
) -> tuple[Floats, Floats]:
    """Minimise logistic loss with penalties; arguments as in `LogisticRegression.train_local`.

    Parameters
    ----------
    weight, bias : numpy.ndarray
        float32, shapes (1, features) and (1,).

    Returns
    -------
    weight, bias : numpy.ndarray
        After training, shapes and types as given.

    Raises
    ------
    DataError
        Training diverged to NaN or infinity.
    """
    with _deterministic():
        # Made without memory first, so that no random start is drawn from the caller's generator.
        layer = torch.nn.Linear(x.shape[1], 1, device="meta").to_empty(device="cpu")
        start_weight, start_bias = torch.tensor(weight), torch.tensor(bias)
        with torch.no_grad():
            layer.weight.copy_(start_weight)
            layer.bias.copy_(start_bias)
        rows, labels = torch.tensor(x), torch.tensor(y)
        parameters: list[torch.Tensor] = list(layer.parameters())
        velocities: list[torch.Tensor | None] = [None] * len(parameters)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            order = torch.randperm(len(rows), generator=generator)
            for batch in torch.split(order, batch_size):
                layer.zero_grad()
                logits = layer(rows[batch]).squeeze(1)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[batch])
                loss = loss + 0.5 * l2 * layer.weight.square().sum()
                if proximal_mu:
                    drift = (layer.weight - start_weight).square().sum()
                    drift = drift + (layer.bias - start_bias).square().sum()
                    loss = loss + 0.5 * proximal_mu * drift
                torch.autograd.backward(loss)
                # The function behind torch.optim.SGD: the class imports torch's compiler.
                with torch.no_grad():
                    sgd(
                        parameters,
                        [p.grad for p in parameters if p.grad is not None],
                        velocities,
                        lr=lr,
                        momentum=MOMENTUM,
                        nesterov=True,
                        dampening=0.0,
                        weight_decay=0.0,
                        maximize=False,
                    )
        trained = (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
    if not all(np.isfinite(array).all() for array in trained):
        raise DataError(
            f"Training diverged with learning rate {lr:g}.", hint="Use a smaller learning rate."
        )
    return trained


@contextmanager
def _deterministic() -> Iterator[None]:
    # Several threads add floats in an order that depends on their number.
    threads = torch.get_num_threads()
    before = torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    # Not use_deterministic_algorithms: that imports torch's compiler, seconds in each process.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.set_num_threads(threads)
