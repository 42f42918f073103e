"""Exchanges as Flower records, and back: the only place that knows both forms.

Whatever comes in is hostile until checked: types, sizes and canonical form here; what it
means is checked by the session and the aggregator.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from twopm_flower.errors import RecordError
from twopm_flower.federated.exchange import (
    Arrays,
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
from twopm_flower.federated.plain_arrays import plain_array
from twopm_flower.federated.wire_fields import (
    MOST_SIGNED,
    blob,
    blob_bytes,
    bytes_field,
    integer_field,
    json_list,
    list_bytes,
    list_of,
    text_field,
)
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    OpeningStatement,
    ReaderKey,
    UpdateStatement,
    signed_type,
)

TWOPM = "twopm"
OURS = "twopm."
AGGREGATES = "twopm.aggregates"
SHARES = "twopm.shares"
KEYS = "twopm.keys"
CIPHERTEXTS = "twopm.ciphertexts"
UPDATE_STYPE = "twopm.update/v1"
AGGREGATE_STYPE = "twopm.aggregate/v1"
SHARE_STYPE = "twopm.share/v1"
KEY_STYPE = "twopm.key/v1"
CIPHERTEXT_STYPE = "twopm.ciphertext/v1"
SAMPLES = "num-examples"
Kind = Literal["prepare", "train", "evaluate", "close", "enrol", "join", "deal", "accept"]
Order = PrepareOrder | TrainOrder | EvaluateOrder | CloseOrder
MOST_READER_KEYS = 2
MOST_REPORTS = 1 << 12
OPENING_FIELDS = {"manifest", "updates", "fingerprints", "keys"}


def order_content(order: Order, *, arrays_key: str, config_key: str) -> RecordDict:
    """Return the records of a message from server to node."""
    fields: dict[str, Any] = {"task": order.task_id}
    initial: Arrays = {}
    content = RecordDict()
    match order:
        case PrepareOrder():
            fields |= {"kind": "prepare"}
        case TrainOrder():
            fields |= {"kind": "train", "round": order.round, "attempt": order.attempt}
            fields["readers"] = list_bytes(order.readers)
            initial = order.initial
            _put_openings(content, fields, order.openings)
        case CloseOrder():
            fields |= {"kind": "close"}
            initial = order.initial
            _put_openings(content, fields, order.openings)
        case EvaluateOrder():
            fields |= {
                "kind": "evaluate",
                "manifest": order.manifest.to_bytes(),
                "updates": list_bytes(order.updates),
                "proofs": canonical_bytes({s.node: list(s.proof) for s in order.shares}),
            }
            _put_shares(content, order.shares)
    content[arrays_key] = ArrayRecord(flower_arrays(initial))
    content[config_key] = ConfigRecord(dict(order.config))
    content[TWOPM] = ConfigRecord(fields)
    return content


def _put_openings(
    content: RecordDict, fields: dict[str, Any], openings: tuple[Opening, ...]
) -> None:
    fields["openings"] = canonical_bytes(
        [
            {
                "manifest": opening.manifest.to_json(),
                "updates": [signed.to_json() for signed in opening.updates],
                "fingerprints": [signed.to_json() for signed in opening.fingerprints],
                "keys": [key.statement.to_json() for key in opening.keys],
            }
            for opening in openings
        ]
    )
    content[AGGREGATES] = ArrayRecord(
        {str(o.manifest.round): blob(o.aggregate, AGGREGATE_STYPE) for o in openings}
    )
    content[KEYS] = ArrayRecord(
        {
            _place(o.manifest, key.statement.node): blob(key.sealed, KEY_STYPE)
            for o in openings
            for key in o.keys
        }
    )
    content[CIPHERTEXTS] = ArrayRecord(
        {
            _place(o.manifest, node): blob(frame, CIPHERTEXT_STYPE)
            for o in openings
            for node, frame in o.ciphertexts.items()
        }
    )


def _put_shares(content: RecordDict, shares: tuple[SealedShare, ...]) -> None:
    content[SHARES] = ArrayRecord({share.node: blob(share.sealed, SHARE_STYPE) for share in shares})


def _place(manifest: RoundManifest, node: str) -> str:
    return f"{manifest.round}/{node}"


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


def parse_order(content: RecordDict) -> Order:
    """Check a message from the server and return what it asks for."""
    kind = message_kind(content)
    fields = content.config_records[TWOPM]
    task_id = text_field(fields, "task")
    config = app_config(content)
    if kind == "prepare":
        return PrepareOrder(task_id=task_id, config=config)
    if kind == "evaluate":
        return EvaluateOrder(
            task_id=task_id,
            config=config,
            manifest=RoundManifest.from_bytes(bytes_field(fields, "manifest")),
            updates=list_of(UpdateStatement, json_list(fields, "updates")),
            shares=tuple(_shares(content, _proofs(fields))),
        )
    openings = tuple(_openings(content, json_list(fields, "openings")))
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
        readers=list_of(ReaderKey, json_list(fields, "readers")),
    )


def app_config(content: RecordDict) -> dict[str, Any]:
    """Return the one configuration that is meant for the app."""
    configs = [record for name, record in content.config_records.items() if name != TWOPM]
    if len(configs) != 1:
        raise RecordError(f"the message carries {len(configs)} app configurations, not one")
    return dict(configs[0])


def app_content(content: RecordDict, arrays: Arrays) -> RecordDict:
    """Return the message that the app sees: the model and its configuration, nothing else."""
    arrays_key = next(name for name in content.array_records if not name.startswith(OURS))
    config_key = next(name for name in content.config_records if name != TWOPM)
    out = RecordDict()
    out[arrays_key] = ArrayRecord(flower_arrays(arrays))
    out[config_key] = content.config_records[config_key]
    return out


def trained_arrays(content: RecordDict) -> Arrays:
    """Return the arrays of the app's train reply."""
    if len(content.array_records) != 1:
        raise RecordError(
            f"the app's train reply carries {len(content.array_records)} ArrayRecords, not one"
        )
    record = next(iter(content.array_records.values()))
    return plain_arrays(record)


def reported_metrics(content: RecordDict) -> dict[str, float]:
    """Return the numbers of the app's one MetricRecord; lists are dropped."""
    if len(content.metric_records) != 1:
        raise RecordError(
            f"the app's reply carries {len(content.metric_records)} MetricRecords, not one"
        )
    record = next(iter(content.metric_records.values()))
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def reply_content(reply: PrepareReply | TrainReply | EvaluateReply) -> RecordDict:
    """Return the records of a node's reply: an allow-list; whatever else the app said stays.

    ``num-examples`` is 1, so that plain strategies can weigh replies without learning counts.
    """
    content = RecordDict()
    fields: dict[str, Any] = {}
    match reply:
        case TrainReply():
            content["arrays"] = ArrayRecord({"update": blob(reply.frame, UPDATE_STYPE)})
            if reply.shares:
                _put_shares(content, reply.shares)
            fields["update"] = reply.update.to_bytes()
            fields["reports"] = list_bytes(reply.reports)
        case EvaluateReply():
            fields["reports"] = list_bytes(reply.reports)
            fields["fingerprint"] = reply.fingerprint.to_bytes() if reply.fingerprint else b""
            fields["evaluation"] = reply.evaluation.to_bytes() if reply.evaluation else b""
            fields["key"] = reply.key.statement.to_bytes() if reply.key else b""
            fields["bad_dealers"] = canonical_bytes(list(reply.bad_dealers))
            fields["readers"] = list_bytes(reply.readers)
            if reply.key:
                content[KEYS] = ArrayRecord({"key": blob(reply.key.sealed, KEY_STYPE)})
        case PrepareReply():
            fields["readers"] = list_bytes(reply.readers)
    content["metrics"] = MetricRecord({SAMPLES: 1})
    content[TWOPM] = ConfigRecord(fields)
    return content


def parse_prepare_reply(content: RecordDict) -> PrepareReply:
    """Check a node's reply to the exchange before the first round."""
    fields = reply_fields(content)
    readers = list_of(ReaderKey, json_list(fields, "readers"), at_most=MOST_READER_KEYS)
    return PrepareReply(readers=readers)


def parse_train_reply(content: RecordDict) -> TrainReply:
    """Check a node's train reply."""
    fields = reply_fields(content)
    plain = {name for name in content.array_records if name != SHARES}
    if plain != {"arrays"} or set(content["arrays"]) != {"update"}:
        raise RecordError("the reply does not carry exactly one encrypted update")
    return TrainReply(
        frame=blob_bytes(content.array_records["arrays"]["update"], UPDATE_STYPE),
        update=signed_type(UpdateStatement).from_bytes(bytes_field(fields, "update")),
        reports=_reports(fields),
        shares=tuple(_shares(content, {})),
    )


def parse_evaluate_reply(content: RecordDict) -> EvaluateReply:
    """Check a node's evaluate or closing reply."""
    fields = reply_fields(content)
    fingerprint, evaluation = bytes_field(fields, "fingerprint"), bytes_field(fields, "evaluation")
    dealers = json_list(fields, "bad_dealers")
    if len(dealers) > MOST_SIGNED or not all(isinstance(dealer, str) for dealer in dealers):
        raise RecordError("'bad_dealers' is not a list of addresses")
    return EvaluateReply(
        fingerprint=signed_type(FingerprintStatement).from_bytes(fingerprint)
        if fingerprint
        else None,
        evaluation=signed_type(EvaluationStatement).from_bytes(evaluation) if evaluation else None,
        reports=_reports(fields),
        key=_key(content, bytes_field(fields, "key")),
        bad_dealers=tuple(dealers),
        readers=list_of(ReaderKey, json_list(fields, "readers"), at_most=MOST_READER_KEYS),
    )


def _key(content: RecordDict, statement: bytes) -> KeyOpening | None:
    if not statement:
        return None
    blobs = content.array_records.get(KEYS, ArrayRecord())
    if set(blobs) != {"key"}:
        raise RecordError("the reply signs an opening and does not carry exactly one")
    return KeyOpening(
        statement=signed_type(OpeningStatement).from_bytes(statement),
        sealed=blob_bytes(blobs["key"], KEY_STYPE),
    )


def _shares(content: RecordDict, proofs: Mapping[str, list[str]]) -> Iterable[SealedShare]:
    for node, array in content.array_records.get(SHARES, ArrayRecord()).items():
        yield SealedShare(
            node=node,
            sealed=blob_bytes(array, SHARE_STYPE),
            proof=tuple(proofs.get(node, ())),
        )


def _proofs(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    value = parse_canonical(bytes_field(fields, "proofs"), what="proofs")
    if not isinstance(value, dict) or not all(
        isinstance(proof, list) and all(isinstance(step, str) for step in proof)
        for proof in value.values()
    ):
        raise RecordError("'proofs' is not a list of digests for each dealer")
    return value


def reply_fields(content: RecordDict) -> ConfigRecord:
    """Return what a node's reply says beside its arrays.

    Raises
    ------
    RecordError
        The reply is not one of ours.
    """
    if TWOPM not in content.config_records:
        raise RecordError(
            "the node's reply is not encrypted",
            hint="Add the mod to the client app: ClientApp(mods=[EncryptionMod()]).",
        )
    return content.config_records[TWOPM]


def _reports(fields: ConfigRecord) -> tuple[ModelReport, ...]:
    values = json_list(fields, "reports")
    if len(values) > MOST_REPORTS:
        raise RecordError(f"{len(values)} reports are more than a node has rounds to catch up")
    return tuple(ModelReport.from_json(value) for value in values)


def _openings(content: RecordDict, values: list[Any]) -> Iterable[Opening]:
    frames = content.array_records.get(AGGREGATES, ArrayRecord())
    ciphertexts = content.array_records.get(CIPHERTEXTS, ArrayRecord())
    for value in values:
        if not isinstance(value, dict) or set(value) != OPENING_FIELDS:
            raise RecordError(f"an opening has other fields than {sorted(OPENING_FIELDS)}")
        manifest = RoundManifest.from_json(value["manifest"])
        frame = frames.get(str(manifest.round))
        if frame is None:
            raise RecordError(f"the aggregate of round {manifest.round} is not in the message")
        yield Opening(
            manifest=manifest,
            updates=list_of(UpdateStatement, value["updates"]),
            fingerprints=list_of(FingerprintStatement, value["fingerprints"]),
            aggregate=blob_bytes(frame, AGGREGATE_STYPE),
            keys=tuple(_opened_keys(content, manifest, value["keys"])),
            ciphertexts={
                node: blob_bytes(ciphertexts[_place(manifest, node)], CIPHERTEXT_STYPE)
                for node in manifest.nodes
                if _place(manifest, node) in ciphertexts
            },
        )


def _opened_keys(content: RecordDict, manifest: RoundManifest, values: Any) -> Iterable[KeyOpening]:
    blobs = content.array_records.get(KEYS, ArrayRecord())
    for signed in list_of(OpeningStatement, values):
        sealed = blobs.get(_place(manifest, signed.node))
        if sealed is None:
            raise RecordError(f"the opening that {signed.node} signed is not in the message")
        yield KeyOpening(statement=signed, sealed=blob_bytes(sealed, KEY_STYPE))


def initial_arrays(content: RecordDict) -> Arrays:
    """Return the one plain model of a message; empty where none was sent."""
    records = [r for name, r in content.array_records.items() if not name.startswith(OURS)]
    if len(records) != 1:
        raise RecordError(f"the message carries {len(records)} models, not one")
    return plain_arrays(records[0])


def plain_arrays(record: ArrayRecord) -> Arrays:
    """Return the arrays of a record as numpy's."""
    return {name: plain_array(name, array) for name, array in record.items()}


def flower_arrays(arrays: Arrays) -> dict[str, Array]:
    """Return plain arrays as Flower's."""
    return {name: Array(value) for name, value in arrays.items()}
