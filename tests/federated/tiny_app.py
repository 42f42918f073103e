"""A Flower app small enough to compute by hand: four weights, numpy only."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from twopm_flower.federated import EncryptionMod

SAMPLES = (40, 25, 31, 18, 22, 27, 35, 20, 29, 24)
TRAIN_CONFIG = {"lr": 0.25, "steps": 3}
RUN_CONFIG = {"app": "tiny", "seed": 7}
Weights = dict[str, np.ndarray]
Behaviour = Callable[[Message, Context, RecordDict], RecordDict]


def initial_weights() -> Weights:
    return {
        "weight": np.array([[0.5, -0.25, 0.125]], np.float32),
        "bias": np.array([0.0625], np.float32),
    }


def local_data(index: int, *, held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that differ from node to node, and targets that one model fits nearly."""
    generator = np.random.default_rng(100 + 2 * index + held_out)
    rows = 7 + index if held_out else SAMPLES[index]
    x = generator.normal(size=(rows, 3))
    noise = generator.normal(scale=0.1, size=rows)
    return x, x @ np.array([1.0, -2.0, 0.5]) + 0.3 * (index + 1) + noise


def train_locally(weights: Weights, index: int, *, proximal_mu: float = 0.0) -> Weights:
    """Return the weights after a few gradient steps on one node's rows."""
    x, y = local_data(index)
    start_w, start_b = weights["weight"].astype(float)[0], float(weights["bias"][0])
    w, b = start_w.copy(), start_b
    for _ in range(TRAIN_CONFIG["steps"]):
        residual = x @ w + b - y
        w = w - TRAIN_CONFIG["lr"] * (x.T @ residual / len(y) + proximal_mu * (w - start_w))
        b = b - TRAIN_CONFIG["lr"] * (float(residual.mean()) + proximal_mu * (b - start_b))
    return {"weight": w[None, :].astype(np.float32), "bias": np.array([b], np.float32)}


def measure(weights: Weights, index: int, *, held_out: bool) -> dict[str, float]:
    """Return rows, rows that are predicted within 1, and the mean absolute error."""
    x, y = local_data(index, held_out=held_out)
    error = np.abs(x @ weights["weight"].astype(float)[0] + float(weights["bias"][0]) - y)
    return {
        "num-examples": len(y),
        "correct": int((error < 1.0).sum()),
        "loss": float(min(error.mean(), 16.0)),
    }


def tiny_app(
    behaviours: Mapping[int, Behaviour] | None = None,
    evaluations: Mapping[int, Behaviour] | None = None,
    *,
    mods: tuple[Any, ...] | None = None,
) -> ClientApp:
    """Return the app; `behaviours` and `evaluations` change what single nodes' apps answer."""
    app = ClientApp(mods=[EncryptionMod()] if mods is None else list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        weights = received(message)
        mu = float(message.content["config"].get("proximal-mu", 0.0))
        trained = train_locally(weights, index, proximal_mu=mu)
        content = RecordDict()
        content["arrays"] = ArrayRecord({name: Array(value) for name, value in trained.items()})
        content["metrics"] = MetricRecord(measure(weights, index, held_out=False))
        change = (behaviours or {}).get(index)
        return Message(change(message, context, content) if change else content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        content = RecordDict()
        content["metrics"] = MetricRecord(measure(received(message), index, held_out=True))
        change = (evaluations or {}).get(index)
        return Message(change(message, context, content) if change else content, reply_to=message)

    return app


def received(message: Message) -> Weights:
    return {name: array.numpy() for name, array in message.content["arrays"].items()}
