"""A Flower app of any size for ``twopm bench round``: a perceptron in numpy on made-up rows."""

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

Arrays = dict[str, npt.NDArray[np.float32]]

OUTPUTS = 10
SMALLEST = 1000

_BATCH = 32
_HELD_OUT = 200
_LEARNING_RATE = 0.05


def shapes(parameters: int) -> list[tuple[int, int]]:
    """Return the shapes of the four weight matrices of a model of about that size."""
    hidden = isqrt(parameters) // 3
    inputs = max(1, (parameters - 2 * hidden * hidden - 13 * hidden - OUTPUTS) // hidden)
    return [(inputs, hidden), (hidden, hidden), (hidden, hidden), (hidden, OUTPUTS)]


def initial(parameters: int) -> Arrays:
    """Return the model before training: three hidden layers with ReLU, ten classes."""
    generator = np.random.default_rng(7)
    model: Arrays = {}
    for index, (rows, columns) in enumerate(shapes(parameters)):
        spread = np.float32((2 / rows) ** 0.5)
        model[f"{index}.weight"] = spread * generator.standard_normal((rows, columns), np.float32)
        model[f"{index}.bias"] = np.zeros(columns, np.float32)
    return model


def client_app(parameters: int, rows: int, mods: list[Mod]) -> ClientApp:
    """Return an app whose nodes train one epoch on `rows` rows each, 32 at a time."""
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model = _model(message)
        x, y = _rows(context, rows, parameters)
        for start in range(0, rows, _BATCH):
            _step(model, x[start : start + _BATCH], y[start : start + _BATCH])
        content = RecordDict({"metrics": _measured(model, x[:_HELD_OUT], y[:_HELD_OUT], rows)})
        content["arrays"] = ArrayRecord({name: Array(value) for name, value in model.items()})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        x, y = _rows(context, _HELD_OUT, parameters, seed=1)
        return Message(
            RecordDict({"metrics": _measured(_model(message), x, y, _HELD_OUT)}), reply_to=message
        )

    return app


def _model(message: Message) -> Arrays:
    record = message.content.array_records["arrays"]
    return {name: array.numpy().astype(np.float32) for name, array in record.items()}


def _rows(
    context: Context, count: int, parameters: int, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return a node's rows: ten clouds of points, the same whenever they are asked for."""
    inputs = shapes(parameters)[0][0]
    centres = np.random.default_rng(3).standard_normal((OUTPUTS, inputs), np.float32)
    generator = np.random.default_rng([seed, int(context.node_config["partition-id"])])
    y = generator.integers(0, OUTPUTS, count)
    return centres[y] + generator.standard_normal((count, inputs), np.float32), y


def _forward(model: Arrays, x: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    layers = [x]
    last = len(model) // 2 - 1
    for index in range(last + 1):
        sums = layers[-1] @ model[f"{index}.weight"] + model[f"{index}.bias"]
        layers.append(sums if index == last else np.maximum(sums, 0))
    return layers


def _probabilities(sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(sums - sums.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _step(model: Arrays, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
    layers = _forward(model, x)
    slope = _probabilities(layers[-1])
    slope[np.arange(len(y)), y] -= 1
    slope /= len(y)
    for index in reversed(range(len(layers) - 1)):
        weight, bias = model[f"{index}.weight"], model[f"{index}.bias"]
        below = slope @ weight.T
        weight -= np.float32(_LEARNING_RATE) * (layers[index].T @ slope)
        bias -= np.float32(_LEARNING_RATE) * slope.sum(axis=0)
        slope = below * (layers[index] > 0)


def _measured(
    model: Arrays, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], rows: int
) -> MetricRecord:
    shares = _probabilities(_forward(model, x)[-1])
    loss = -np.log(np.maximum(shares[np.arange(len(y)), y], 1e-9)).mean()
    correct = int((shares.argmax(axis=1) == y).sum())
    metrics: dict[str, Any] = {"num-examples": rows, "correct": correct, "loss": float(loss)}
    return MetricRecord(metrics)
