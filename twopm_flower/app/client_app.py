"""The node's side of the showcase: load this node's students, train, evaluate."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from twopm_flower.datasets.features import FeatureEncoder
from twopm_flower.datasets.partition import partition, split_holdout
from twopm_flower.datasets.student import StudentTable, load_students
from twopm_flower.federated import EncryptionMod
from twopm_flower.federated.active import active_task
from twopm_flower.federated.enrolment import DATASET_KEY
from twopm_flower.models.base import Metrics
from twopm_flower.models.logistic_regression import LogisticRegression
from twopm_flower.node.local_data import has_chosen, load_rows

app = ClientApp(mods=[EncryptionMod()])

DATA_KEY = "data"
"""Node configuration: the folder or file with this node's students."""


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on this node's training rows."""
    x, y, model = _rows(context, held_out=False)
    config = message.content.config_records["config"]
    arrays, metrics = model.train_local(
        _arrays(message),
        x,
        y,
        epochs=int(_number(config["epochs"])),
        lr=_number(config["lr"]),
        batch_size=int(_number(config["batch-size"])),
        l2=_number(config["l2"]),
        seed=int(_number(config["seed"])),
        proximal_mu=_number(config.get("proximal-mu", 0.0)),
    )
    content = RecordDict()
    content["arrays"] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    content["metrics"] = _metrics(metrics)
    content[DATASET_KEY] = _description(context)
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Count how many of this node's held-out rows the received model gets right."""
    x, y, model = _rows(context, held_out=True)
    content = RecordDict()
    content["metrics"] = _metrics(model.evaluate(_arrays(message), x, y))
    return Message(content, reply_to=message)


def _rows(
    context: Context, *, held_out: bool
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], LogisticRegression]:
    folder = active_task()
    if folder is not None and has_chosen(folder):
        rows = load_rows(folder)
        model = LogisticRegression(rows.train_x.shape[1])
        if held_out:
            return rows.held_out_x, rows.held_out_y, model
        return rows.train_x, rows.train_y, model
    run, node = context.run_config, context.node_config
    frame = _students(str(run["subject"]), str(node.get(DATA_KEY, ""))).frame
    parts = partition(
        frame,
        int(_number(node.get("num-partitions", 1))),
        str(run["partition"]),
        seed=int(_number(run["seed"])),
    )
    own = parts[int(_number(node.get("partition-id", 0)))]
    split = split_holdout(own, seed=int(_number(run["seed"])))
    encoder = FeatureEncoder(str(run["setup"]), str(run["target"]))
    x, y = encoder.encode(frame.iloc[split.held_out if held_out else split.train])
    return x, y, LogisticRegression(encoder.n_features)


@cache
def _students(subject: str, path: str) -> StudentTable:
    return load_students(subject, Path(path) if path else None, progress=False)


def _description(context: Context) -> ConfigRecord:
    folder = active_task()
    if folder is not None and has_chosen(folder):
        return ConfigRecord()
    table = _students(
        str(context.run_config["subject"]), str(context.node_config.get(DATA_KEY, ""))
    )
    return ConfigRecord({"label": table.label, "synthetic": table.is_synthetic})


def _arrays(message: Message) -> dict[str, Any]:
    return {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}


def _metrics(metrics: Metrics) -> MetricRecord:
    return MetricRecord(
        {
            "num-examples": metrics.rows,
            "correct": metrics.correct,
            "loss": float(metrics.loss),
        }
    )


def _number(value: Any) -> float:
    return float(value)
