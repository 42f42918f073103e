"""What the rest of the package knows about a model: names, shapes, training, evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Arrays = dict[str, Floats]


@dataclass(frozen=True)
class ArraySpec:
    """Name and shape of one array of a model.

    Attributes
    ----------
    name : str
        Unique within the model.
    shape : tuple[int, ...]
        Its dimensions.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return prod(self.shape)


Layout = tuple[ArraySpec, ...]


@dataclass(frozen=True)
class Metrics:
    """Sums over rows, which nodes can add up exactly where they could not add averages.

    Attributes
    ----------
    correct : int
        Rows classified correctly at probability 1/2.
    rows : int
        Rows looked at; at least 1.
    loss_sum : float
        Sum over the rows of the logistic loss in nats, without any penalty.
    """

    correct: int
    rows: int
    loss_sum: float

    @property
    def accuracy(self) -> float:
        """Share of correct rows, from 0 to 1."""
        return self.correct / self.rows

    @property
    def loss(self) -> float:
        """Mean loss per row in nats."""
        return self.loss_sum / self.rows


class TrainMetrics(Metrics):
    """Metrics of the trained model on the rows it was trained on."""


class EvalMetrics(Metrics):
    """Metrics of a model on rows it was not trained on in this round."""


@runtime_checkable
class Model(Protocol):
    """A model family of fixed layout, without state: arrays go in and arrays come out.

    Implementations register under the entry point group ``twopm_flower.models`` as a callable of
    the number of features. Importing one, evaluating and predicting must not import torch.
    """

    @property
    def name(self) -> str:
        """The name under which the family is registered."""
        ...

    @property
    def layout(self) -> Layout:
        """The arrays in the order in which they are flattened."""
        ...

    def initial(self, seed: int) -> Arrays:
        """Return the public initial model, the same bytes for the same seed everywhere."""
        ...

    def train_local(
        self,
        arrays: Mapping[str, Floats],
        x: Floats,
        y: Floats,
        *,
        epochs: int,
        lr: float,
        batch_size: int,
        l2: float,
        seed: int,
        proximal_mu: float = 0.0,
    ) -> tuple[Arrays, TrainMetrics]:
        """Return new arrays after training from `arrays` on one node's rows."""
        ...

    def evaluate(self, arrays: Mapping[str, Floats], x: Floats, y: Floats) -> EvalMetrics:
        """Return correct rows, rows and summed loss."""
        ...

    def predict_probability(self, arrays: Mapping[str, Floats], x: Floats) -> NDArray[np.float64]:
        """Return for each row the probability of label 1, float64, shape (rows,)."""
        ...
