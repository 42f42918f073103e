"""The model, the data and the training: plain PyTorch, nothing here knows of encryption."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

TRAIN_ROWS = 120
HELD_OUT_ROWS = 40
NOISE = 0.15


class Net(nn.Module):
    """A network of 65 weights that tells two interleaved half-moons apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per row of `x`."""
        return self.layers(x).squeeze(1)


def initial_model() -> Net:
    """Return the public model that all nodes start from, the same every time."""
    torch.manual_seed(2026)
    return Net()


def load_rows(partition_id: int, *, held_out: bool) -> tuple[Tensor, Tensor]:
    """Return this node's rows; replace the generated points by your own data here."""
    generator = torch.Generator().manual_seed(2 * partition_id + held_out)
    rows = HELD_OUT_ROWS if held_out else TRAIN_ROWS
    angle = math.pi * torch.rand(rows, generator=generator)
    label = torch.arange(rows) % 2
    upper = torch.stack((angle.cos(), angle.sin()), dim=1)
    lower = torch.stack((1 - angle.cos(), 0.5 - angle.sin()), dim=1)
    points = torch.where(label.bool().unsqueeze(1), lower, upper)
    noise = NOISE * torch.randn(rows, 2, generator=generator)
    return points + noise, label.float()


def train(model: Net, x: Tensor, y: Tensor, *, epochs: int, learning_rate: float) -> float:
    """Train on all rows at once and return the last loss."""
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    loss = torch.zeros(())
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimiser.step()
    return loss.item()


def evaluate(model: Net, x: Tensor, y: Tensor) -> tuple[int, float]:
    """Return how many rows the model gets right, and its loss."""
    with torch.no_grad():
        logits = model(x)
        correct = ((logits > 0) == y.bool()).sum().item()
        return int(correct), binary_cross_entropy_with_logits(logits, y).item()
