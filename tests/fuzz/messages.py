"""Whole messages, honest ones and changed ones, as Flower hands them to us."""

import random
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from mutators import BYTES, JSON, NUMBERS, VALUES, Mutator
from record_factories import DOMAIN, SIGNER, d, statements
from run_simulator import simulate

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    KeyOpening,
    ModelReport,
    Opening,
    PrepareOrder,
    PrepareReply,
    SealedShare,
    TrainOrder,
    TrainReply,
)
from twopm_flower.records.bundle import RoundBundle, RunBundle
from twopm_flower.records.statements import sign

CONFIG = {"lr": 0.1, "server-round": 1, "name": "tiny", "steps": [1, 2]}
MODEL = {"weight": np.ones((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
STYPES = ("numpy.ndarray", "", "pickle", wire.UPDATE_STYPE, wire.AGGREGATE_STYPE, wire.SHARE_STYPE)
SHAPES = ((), (0,), (1,), (2, 3), (-1,), (2**40, 2**40), (1,) * 70, (2**63,))
NAMES = (
    "", "arrays", "config", "metrics", "update", "key", "model", "twopm", "1", "2", "1/x", "é",
    "x" * 300, wire.SHARES, wire.KEYS, wire.AGGREGATES, wire.CIPHERTEXTS, SIGNER.address,
)  # fmt: skip


def _signed(name: str) -> Any:
    statement = next(s for s in statements(SIGNER.address) if type(s).__name__ == name)
    return sign(statement, SIGNER, DOMAIN)


def _opening(run: RunBundle, one: RoundBundle) -> Opening:
    aggregate = run.artifact(one.manifest.aggregate_digest)
    assert aggregate is not None
    return Opening(
        manifest=one.manifest,
        updates=one.updates,
        fingerprints=one.fingerprints,
        aggregate=aggregate,
        keys=tuple(KeyOpening(signed, bytes(64)) for signed in one.openings),
        ciphertexts={node: bytes(80) for node in one.manifest.nodes[:1]} if one.openings else {},
    )


@cache
def honest_orders() -> tuple[RecordDict, ...]:
    """Return one message of each kind from server to node, of two trust modes."""
    found: list[Any] = [PrepareOrder(task_id=d(1), config=CONFIG)]
    readers = (_signed("ReaderKey"),)
    for mode in ("shared-key", "one-time-key"):
        run = simulate(nodes=4, rounds=2, repeated_round=None, trust_mode=mode).bundle
        openings = tuple(_opening(run, one) for one in run.rounds)
        first = run.rounds[0]
        shares = tuple(SealedShare(n, bytes(99), (d(7), d(8))) for n in first.manifest.nodes)
        found += [
            TrainOrder(d(1), 1, 1, CONFIG, MODEL, (), readers),
            TrainOrder(d(1), 3, 2, CONFIG, {}, openings, readers),
            EvaluateOrder(d(1), CONFIG, first.manifest, first.updates, shares),
            CloseOrder(d(1), CONFIG, {}, openings[-1:]),
        ]
    return tuple(
        wire.order_content(order, arrays_key="arrays", config_key="config") for order in found
    )


@cache
def honest_replies(kind: str) -> tuple[RecordDict, ...]:
    """Return messages from node to server: to ``prepare``, ``train`` or ``evaluate`` orders."""
    readers = (_signed("ReaderKey"),)
    run = simulate(nodes=4, rounds=1, repeated_round=None, trust_mode="one-time-key").bundle
    one = run.rounds[0]
    assert one.metrics is not None
    reports = tuple(ModelReport(model=model, metrics=one.metrics) for model in one.models)
    shares = tuple(SealedShare(node, bytes(99)) for node in one.manifest.nodes)
    key = KeyOpening(one.openings[0], bytes(64))
    update, evaluation = one.updates[0], _signed("EvaluationStatement")
    found: dict[str, list[Any]] = {
        "prepare": [PrepareReply(readers)],
        "train": [
            TrainReply(bytes(200), update, reports[:1]),
            TrainReply(bytes(2000), update, (), shares),
        ],
        "evaluate": [
            EvaluateReply(one.fingerprints[0], evaluation, reports[:2]),
            EvaluateReply(one.fingerprints[1], None, (), key, one.manifest.nodes[:2], readers),
            EvaluateReply(None, None),
        ],
    }
    return tuple(wire.reply_content(reply) for reply in found[kind])


class MessageMutator:
    """Changes records, fields, arrays and the bytes in them.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)
        self._bytes = Mutator(seed + 1, BYTES)
        self._json = Mutator(seed + 2, JSON)

    def mutate(self, messages: tuple[RecordDict, ...]) -> RecordDict:
        """Return one of `messages` after one change, or a few."""
        content = _copy(self._source.choice(messages))
        while True:
            self._change(content, self._source.choice(messages))
            if self._source.random() < 0.7:
                return content

    def _change(self, content: RecordDict, other: RecordDict) -> None:
        source = self._source
        if not content:
            content["twopm"] = ConfigRecord({"kind": "train"})
        name, draw = source.choice(list(content)), source.random()
        record = content[name]
        if draw < 0.04:
            del content[name]
        elif draw < 0.08:
            content[source.choice(NAMES)] = record
        elif draw < 0.12:
            content[name] = source.choice(
                [ConfigRecord({}), MetricRecord({"num-examples": 10**9}), ArrayRecord({})]
            )
        elif draw < 0.17:
            lent = source.choice(list(other))
            content[lent] = _copy_record(other[lent])
        elif isinstance(record, ArrayRecord):
            self._change_arrays(record)
        elif isinstance(record, ConfigRecord):
            self._change_fields(record)
        else:
            record[source.choice(NAMES)] = source.choice([0, -1, 2**62, float("nan"), [1.5]])

    def _change_fields(self, record: ConfigRecord) -> None:
        source = self._source
        name = source.choice(list(record)) if record else "kind"
        value, draw = record.get(name), source.random()
        if draw < 0.06:
            record.pop(name, None)
        elif draw < 0.12:
            record[source.choice(NAMES)] = b"[]"
        elif draw < 0.25 or value is None:
            record[name] = source.choice(
                [0, -1, 2**62, True, 1.5, float("inf"), "", "x" * 500, "train", "evaluate", "close",
                 "prepare", b"", b"[]", b"{}", b"null", b"[[]]", [], [1], ["a"], [b""], [True]]
            )  # fmt: skip
        elif isinstance(value, bytes):
            record[name] = self._json.mutate([value])
        elif isinstance(value, bool | int | float):
            record[name] = source.choice(NUMBERS[:9])
        elif isinstance(value, str):
            record[name] = source.choice([str(v) for v in VALUES])
        else:
            record[name] = "a list no more"

    def _change_arrays(self, record: ArrayRecord) -> None:
        source = self._source
        name = source.choice(list(record)) if record else "update"
        array, draw = record.get(name), source.random()
        if array is None or draw < 0.1:
            record[source.choice(NAMES)] = Array("uint8", (3,), source.choice(STYPES), b"abc")
        elif draw < 0.2:
            del record[name]
        elif draw < 0.3:
            record[source.choice(NAMES)] = array
        elif draw < 0.45:
            record[name] = Array(array.dtype, array.shape, source.choice(STYPES), array.data)
        elif draw < 0.6:
            dtype = source.choice(["float32", "float64", "O", "", "(2**40,)f4", "V8", "M8[ns]"])
            record[name] = Array(dtype, source.choice(SHAPES), array.stype, array.data)
        elif draw < 0.7:
            made = np.ones((2, 3), source.choice(["f8", "i8", "?", "U3", "f4", ">f4", "c8", "V4"]))
            record[name] = Array(np.asfortranarray(made) if draw < 0.65 else made)
        else:
            data = self._bytes.mutate([array.data])
            if source.random() < 0.3:
                data = data.replace(b"(1, 3)", b"(1099511627776,)").replace(b"<f4", b"|O ")
            record[name] = Array(array.dtype, array.shape, array.stype, data)


def _copy(content: RecordDict) -> RecordDict:
    copied = RecordDict()
    for name, record in content.items():
        copied[name] = _copy_record(record)
    return copied


def _copy_record(record: Any) -> Any:
    return type(record)(dict(record))


def comparable(value: Any) -> Any:
    """Return an exchange in a form that ``==`` compares, arrays by their bytes."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(comparable(inner) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: comparable(getattr(value, f.name)) for f in fields(value)}
    return value


def rewritten(order: Any) -> RecordDict:
    """Return the message of an exchange that was parsed."""
    if isinstance(order, TrainOrder | EvaluateOrder | CloseOrder | PrepareOrder):
        plain = replace(order, config=dict(order.config))
        return wire.order_content(plain, arrays_key="arrays", config_key="config")
    return wire.reply_content(order)
