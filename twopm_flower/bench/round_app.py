"""A Flower app of any size for ``twopm bench round``: a convolutional network on made-up images.

The network and how it is trained are those of the CIFAR-10 experiments of McMahan et al.,
"Communication-Efficient Learning of Deep Networks from Decentralized Data" (2017): two
convolutions of 5 x 5, two dense layers and the logits, on images of 24 x 24 pixels, 500 per
node, 5 epochs a round in batches of 50. With 64 channels it has 1,068,298 parameters; other
sizes have all layers wider or narrower.
"""

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from torch import nn

Arrays = dict[str, npt.NDArray[np.float32]]

ROWS = 500
EPOCHS = 5
SMALLEST = 1000
METRICS = {"correct": "int", "loss": "float"}

_BATCH = 50
_HELD_OUT = 100
_LEARNING_RATE = 0.1
_CLASSES = 10
_IMAGE = (3, 24, 24)


def network(parameters: int) -> nn.Sequential:
    """Return the network of about that size, with the same first weights every time."""
    # With c channels it has 259 c**2 + 116 c + 10 parameters.
    channels = max(2, round((isqrt(116**2 + 4 * 259 * (parameters - 10)) - 116) / (2 * 259)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(_IMAGE[0], channels, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(channels, channels, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Flatten(),
            nn.Linear(36 * channels, 6 * channels),
            nn.ReLU(),
            nn.Linear(6 * channels, 3 * channels),
            nn.ReLU(),
            nn.Linear(3 * channels, _CLASSES),
        )


def initial(parameters: int) -> Arrays:
    """Return the model before training."""
    return {name: tensor.numpy() for name, tensor in network(parameters).state_dict().items()}


def client_app(mods: list[Mod]) -> ClientApp:
    """Return an app whose nodes train as the run configuration says.

    It has ``parameters``, ``rows``, the images of each node, and ``epochs``, of one round.
    """
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        run = context.run_config
        rows = int(run["rows"])
        model = _model(message, int(run["parameters"]))
        x, y = images(_partition(context), rows)
        train_model(model, x, y, epochs=int(run["epochs"]))
        content = RecordDict({"metrics": _metrics(model, x[:_HELD_OUT], y[:_HELD_OUT], rows)})
        trained = model.state_dict().items()
        content["arrays"] = ArrayRecord({name: Array(array.numpy()) for name, array in trained})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        model = _model(message, int(context.run_config["parameters"]))
        x, y = images(_partition(context), _HELD_OUT, seed=1)
        return Message(RecordDict({"metrics": _metrics(model, x, y, _HELD_OUT)}), reply_to=message)

    return app


def images(partition: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a node's images and their classes: ten clouds, the same whenever asked for."""
    centres = np.random.default_rng(3).standard_normal((_CLASSES, *_IMAGE), np.float32)
    generator = np.random.default_rng([seed, partition])
    y = generator.integers(0, _CLASSES, count)
    x = centres[y] + generator.standard_normal((count, *_IMAGE), np.float32)
    return torch.from_numpy(x), torch.from_numpy(y)


def train_model(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, epochs: int) -> None:
    """Train in place by stochastic gradient descent, batch after batch in order."""
    optimiser = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)
    for _ in range(epochs):
        for start in range(0, len(x), _BATCH):
            batch = slice(start, start + _BATCH)
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(x[batch]), y[batch]))
            optimiser.step()


def measured(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[int, float]:
    """Return how many images a model gets right, and its mean loss."""
    with torch.no_grad():
        sums = model(x)
        loss = float(nn.functional.cross_entropy(sums, y))
    return int((sums.argmax(dim=1) == y).sum()), loss


def _partition(context: Context) -> int:
    return int(context.node_config.get("partition-id", 0))


def _model(message: Message, parameters: int) -> nn.Sequential:
    model = network(parameters)
    record = message.content.array_records["arrays"]
    model.load_state_dict(
        {name: torch.from_numpy(array.numpy().astype(np.float32)) for name, array in record.items()}
    )
    return model


def _metrics(model: nn.Module, x: torch.Tensor, y: torch.Tensor, rows: int) -> MetricRecord:
    correct, loss = measured(model, x, y)
    values: dict[str, Any] = {"num-examples": rows, "correct": correct, "loss": loss}
    return MetricRecord(values)
