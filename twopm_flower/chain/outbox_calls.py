"""How calls are named and stored in an outbox."""

import json
from dataclasses import asdict
from typing import Any

from twopm_flower.chain.calls import (
    AnchorCall,
    AttestCall,
    Call,
    FinaliseCall,
    FinalRound,
    RoundCall,
)

Key = tuple[str, str, int, int]
"""Kind, task identifier or root, round, attempt: nothing is queued twice under one key."""


def key_of(call: Call) -> Key:
    """Return what makes a call one of its kind."""
    if isinstance(call, RoundCall):
        return "round", call.task_id, call.round, call.attempt
    if isinstance(call, AttestCall):
        return "attestation", call.task_id, call.round, 0
    if isinstance(call, AnchorCall):
        return "anchor", call.root, 0, 0
    return "finalisation", call.task_id, 0, 0


def lane_of(call: Call) -> str:
    """Return what calls have in common that must be done one after the other.

    Those of a task are done in the order of queueing; anchors depend on nothing.
    """
    return call.root if isinstance(call, AnchorCall) else call.task_id


def words_for(call: Call) -> str:
    """Return what a call is, for messages and tables."""
    if isinstance(call, RoundCall):
        return f"round {call.round}, attempt {call.attempt}"
    if isinstance(call, AttestCall):
        return f"the attestation of round {call.round}"
    if isinstance(call, AnchorCall):
        return f"the anchor of {call.count} receipts"
    return "the final model"


def to_payload(call: Call) -> str:
    """Return a call as it is stored; equal calls have equal text."""
    return json.dumps(asdict(call), sort_keys=True)


def from_payload(kind: str, payload: str) -> Call:
    """Return the call that was stored."""
    values: dict[str, Any] = json.loads(payload)
    if kind == "round":
        return RoundCall(**values)
    if kind == "anchor":
        return AnchorCall(**values)
    values["last"] = FinalRound(**values["last"])
    return AttestCall(**values) if kind == "attestation" else FinaliseCall(**values)
