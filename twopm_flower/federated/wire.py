"""Exchanges as Flower records, and back: the only place that knows both forms.

Whatever comes in is hostile until checked: types, sizes and canonical form here; what it
means is checked by the session and the aggregator.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from twopm_flower.errors import RecordError
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    FloatArrays,
    ModelReport,
    Opening,
    TrainOrder,
    TrainReply,
)
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.fields import Record
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    Signed,
    Statement,
    UpdateStatement,
    parse_signed,
    signed_type,
)

TWOPM = "twopm"
AGGREGATES = "twopm.aggregates"
UPDATE_STYPE = "twopm.update/v1"
AGGREGATE_STYPE = "twopm.aggregate/v1"
SAMPLES = "num-examples"
Kind = Literal["train", "evaluate", "close", "enrol", "join", "deal", "accept"]
S = TypeVar("S", bound=Statement)


def order_content(
    order: TrainOrder | EvaluateOrder | CloseOrder, *, arrays_key: str, config_key: str
) -> RecordDict:
    """Return the records of a message from server to node."""
    fields: dict[str, Any] = {"task": order.task_id}
    initial: FloatArrays = {}
    openings: tuple[Opening, ...] = ()
    match order:
        case TrainOrder():
            fields |= {"kind": "train", "round": order.round, "attempt": order.attempt}
            initial, openings = order.initial, order.openings
        case CloseOrder():
            fields |= {"kind": "close"}
            initial, openings = order.initial, order.openings
        case EvaluateOrder():
            fields |= {
                "kind": "evaluate",
                "manifest": order.manifest.to_bytes(),
                "updates": _list_bytes(order.updates),
            }
    if not isinstance(order, EvaluateOrder):
        fields["openings"] = canonical_bytes(
            [
                {
                    "manifest": opening.manifest.to_json(),
                    "updates": [signed.to_json() for signed in opening.updates],
                    "fingerprints": [signed.to_json() for signed in opening.fingerprints],
                }
                for opening in openings
            ]
        )
    content = RecordDict()
    content[arrays_key] = ArrayRecord(flower_arrays(initial))
    content[config_key] = ConfigRecord(dict(order.config))
    content[TWOPM] = ConfigRecord(fields)
    content[AGGREGATES] = ArrayRecord(
        {str(o.manifest.round): blob(o.aggregate, AGGREGATE_STYPE) for o in openings}
    )
    return content


def message_kind(content: RecordDict) -> Kind:
    """Return which exchange a message belongs to.

    Raises
    ------
    RecordError
        Not one of ours: the server does not use ``EncryptedAggregation``.
    """
    record = content.config_records.get(TWOPM)
    kind = None if record is None else record.get("kind")
    for known in get_args(Kind):
        if kind == known:
            return cast(Kind, known)
    raise RecordError(
        "the server's message carries no twopm-flower exchange",
        hint="Wrap the server's strategy: EncryptedAggregation(FedAvg(...)).",
    )


def parse_order(content: RecordDict) -> TrainOrder | EvaluateOrder | CloseOrder:
    """Check a message from the server and return what it asks for."""
    kind = message_kind(content)
    fields = content.config_records[TWOPM]
    task_id = text_field(fields, "task")
    config = app_config(content)
    if kind == "evaluate":
        return EvaluateOrder(
            task_id=task_id,
            config=config,
            manifest=RoundManifest.from_bytes(bytes_field(fields, "manifest")),
            updates=_list_of(UpdateStatement, _json_list(fields, "updates")),
        )
    openings = tuple(_openings(content, _json_list(fields, "openings")))
    initial = initial_arrays(content)
    if kind == "close":
        return CloseOrder(task_id=task_id, config=config, initial=initial, openings=openings)
    return TrainOrder(
        task_id=task_id,
        round=integer_field(fields, "round"),
        attempt=integer_field(fields, "attempt"),
        config=config,
        initial=initial,
        openings=openings,
    )


def app_config(content: RecordDict) -> dict[str, Any]:
    """Return the one configuration that is meant for the app."""
    configs = [record for name, record in content.config_records.items() if name != TWOPM]
    if len(configs) != 1:
        raise RecordError(f"the message carries {len(configs)} app configurations, not one")
    return dict(configs[0])


def app_content(content: RecordDict, arrays: FloatArrays) -> RecordDict:
    """Return the message that the app sees: the model and its configuration, nothing else."""
    arrays_key = next(name for name in content.array_records if name != AGGREGATES)
    config_key = next(name for name in content.config_records if name != TWOPM)
    out = RecordDict()
    out[arrays_key] = ArrayRecord(flower_arrays(arrays))
    out[config_key] = content.config_records[config_key]
    return out


def trained_arrays(content: RecordDict) -> FloatArrays:
    """Return the arrays of the app's train reply, as float32 where they are floats."""
    if len(content.array_records) != 1:
        raise RecordError(
            f"the app's train reply carries {len(content.array_records)} ArrayRecords, not one"
        )
    record = next(iter(content.array_records.values()))
    return float_arrays(record)


def reported_metrics(content: RecordDict) -> dict[str, float]:
    """Return the numbers of the app's one MetricRecord; lists are dropped."""
    if len(content.metric_records) != 1:
        raise RecordError(
            f"the app's reply carries {len(content.metric_records)} MetricRecords, not one"
        )
    record = next(iter(content.metric_records.values()))
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def reply_content(reply: TrainReply | EvaluateReply) -> RecordDict:
    """Return the records of a node's reply: an allow-list; whatever else the app said stays.

    ``num-examples`` is 1, so that plain strategies can weigh replies without learning counts.
    """
    content = RecordDict()
    fields: dict[str, Any] = {"reports": _list_bytes(reply.reports)}
    if isinstance(reply, TrainReply):
        content["arrays"] = ArrayRecord({"update": blob(reply.frame, UPDATE_STYPE)})
        fields["update"] = reply.update.to_bytes()
    else:
        fields["fingerprint"] = reply.fingerprint.to_bytes() if reply.fingerprint else b""
        fields["evaluation"] = reply.evaluation.to_bytes() if reply.evaluation else b""
    content["metrics"] = MetricRecord({SAMPLES: 1})
    content[TWOPM] = ConfigRecord(fields)
    return content


def parse_train_reply(content: RecordDict) -> TrainReply:
    """Check a node's train reply."""
    fields = _reply_fields(content)
    if set(content.array_records) != {"arrays"} or set(content["arrays"]) != {"update"}:
        raise RecordError("the reply does not carry exactly one encrypted update")
    return TrainReply(
        frame=_blob_bytes(content.array_records["arrays"]["update"], UPDATE_STYPE),
        update=signed_type(UpdateStatement).from_bytes(bytes_field(fields, "update")),
        reports=_reports(fields),
    )


def parse_evaluate_reply(content: RecordDict) -> EvaluateReply:
    """Check a node's evaluate or closing reply."""
    fields = _reply_fields(content)
    fingerprint, evaluation = bytes_field(fields, "fingerprint"), bytes_field(fields, "evaluation")
    return EvaluateReply(
        fingerprint=signed_type(FingerprintStatement).from_bytes(fingerprint)
        if fingerprint
        else None,
        evaluation=signed_type(EvaluationStatement).from_bytes(evaluation) if evaluation else None,
        reports=_reports(fields),
    )


def _reply_fields(content: RecordDict) -> ConfigRecord:
    if TWOPM not in content.config_records:
        raise RecordError(
            "the node's reply is not encrypted",
            hint="Add the mod to the client app: ClientApp(mods=[EncryptionMod()]).",
        )
    return content.config_records[TWOPM]


def _reports(fields: ConfigRecord) -> tuple[ModelReport, ...]:
    return tuple(ModelReport.from_json(value) for value in _json_list(fields, "reports"))


def _openings(content: RecordDict, values: list[Any]) -> Iterable[Opening]:
    frames = content.array_records.get(AGGREGATES, ArrayRecord())
    for value in values:
        if not isinstance(value, dict) or set(value) != {"manifest", "updates", "fingerprints"}:
            raise RecordError("an opening has other fields than manifest, updates, fingerprints")
        manifest = RoundManifest.from_json(value["manifest"])
        frame = frames.get(str(manifest.round))
        if frame is None:
            raise RecordError(f"the aggregate of round {manifest.round} is not in the message")
        yield Opening(
            manifest=manifest,
            updates=_list_of(UpdateStatement, value["updates"]),
            fingerprints=_list_of(FingerprintStatement, value["fingerprints"]),
            aggregate=_blob_bytes(frame, AGGREGATE_STYPE),
        )


def initial_arrays(content: RecordDict) -> FloatArrays:
    """Return the one plain model of a message; empty where none was sent."""
    records = [record for name, record in content.array_records.items() if name != AGGREGATES]
    if len(records) != 1:
        raise RecordError(f"the message carries {len(records)} models, not one")
    return float_arrays(records[0])


def float_arrays(record: ArrayRecord) -> FloatArrays:
    """Return the arrays of a record, which must all be float32."""
    arrays = {name: array.numpy() for name, array in record.items()}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise RecordError(
                f"array {name!r} of the model is {array.dtype}, not float32",
                hint="Convert it, or leave it out of the model that is federated.",
            )
    return arrays


def flower_arrays(arrays: FloatArrays) -> dict[str, Array]:
    """Return plain arrays as Flower's."""
    return {name: Array(value) for name, value in arrays.items()}


def _list_of(kind: type[S], values: Any) -> tuple[Signed[S], ...]:
    if not isinstance(values, list):
        raise RecordError(f"the list of {kind.__name__} is not a list")
    return tuple(parse_signed(kind, value) for value in values)


def _list_bytes(records: Iterable[Record]) -> bytes:
    return canonical_bytes([record.to_json() for record in records])


def _json_list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = parse_canonical(bytes_field(fields, name), what=name)
    if not isinstance(value, list):
        raise RecordError(f"{name!r} is not a list")
    return value


def bytes_field(fields: Mapping[str, Any], name: str) -> bytes:
    """Return a field that must be bytes."""
    value = fields.get(name)
    if not isinstance(value, bytes):
        raise RecordError(f"{name!r} is missing or not bytes")
    return value


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be text."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise RecordError(f"{name!r} is missing or not text")
    return value


def integer_field(fields: Mapping[str, Any], name: str) -> int:
    """Return a field that must be a number from 1 on."""
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**32:
        raise RecordError(f"{name!r} is missing or not a number from 1 on")
    return value


def blob(data: bytes, stype: str) -> Array:
    """Return bytes as an array of a kind of ours; Flower chunks and de-duplicates it."""
    return Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)


def _blob_bytes(array: Array, stype: str) -> bytes:
    if array.stype != stype:
        raise RecordError(f"an array is of the kind {array.stype!r}, not {stype!r}")
    return bytes(array.data)
