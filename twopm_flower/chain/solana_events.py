"""Events of our Solana program, from the log of a transaction: none but its own are believed.

``docs/solana.md`` is the definition. Any program may log any bytes, so a line counts only while
ours is the innermost program that runs.
"""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from solders.pubkey import Pubkey

from twopm_flower.chain.facts import EventName
from twopm_flower.chain.solana_identity import account_address, address_text

EVENT_VERSION = 1
Values = dict[str, str | int]

_INVOKE = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) invoke \[(\d+)\]")
_ENDED = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) (?:success|failed: .*)", re.DOTALL)
_DATA = "Program data: "
TRUNCATED = "Log truncated"

# By tag: the event's name, and its fields as (name, kind).
_LAYOUTS: dict[int, tuple[EventName, tuple[tuple[str, str], ...]]] = {
    1: ("node_registered", (("node", "address"), ("sealing_key", "digest"), ("nonce", "Q"))),
    2: ("node_left", (("node", "address"), ("nonce", "Q"))),
    3: (
        "data_published",
        (
            ("node", "address"),
            ("dataset", "digest"),
            ("version", "I"),
            ("commitment", "digest"),
            ("samples", "Q"),
        ),
    ),
    4: (
        "task_created",
        (
            ("task_id", "digest"),
            ("coordinator", "key"),
            ("terms_digest", "digest"),
            ("rounds", "I"),
            ("min_contributors", "H"),
            ("quorum", "H"),
            ("max_samples", "Q"),
        ),
    ),
    5: (
        "member_joined",
        (
            ("task_id", "digest"),
            ("node", "address"),
            ("index", "I"),
            ("samples", "Q"),
            ("data_commitment", "digest"),
            ("sealing_key", "digest"),
            ("roster_digest", "digest"),
        ),
    ),
    6: (
        "task_started",
        (("task_id", "digest"), ("roster_digest", "digest"), ("members", "I")),
    ),
    7: (
        "round_recorded",
        (
            ("task_id", "digest"),
            ("round", "I"),
            ("attempt", "I"),
            ("manifest_digest", "digest"),
            ("updates_root", "digest"),
            ("head", "digest"),
        ),
    ),
    8: (
        "model_attested",
        (
            ("task_id", "digest"),
            ("round", "I"),
            ("manifest_digest", "digest"),
            ("model_digest", "digest"),
            ("metrics_digest", "digest"),
            ("signers", "I"),
        ),
    ),
    9: (
        "task_finalised",
        (
            ("task_id", "digest"),
            ("model_digest", "digest"),
            ("metrics_digest", "digest"),
            ("head", "digest"),
            ("signers", "I"),
        ),
    ),
    10: ("task_cancelled", (("task_id", "digest"), ("reason", "text"))),
    11: ("receipts_anchored", (("issuer", "key"), ("root", "digest"), ("count", "I"))),
}
_INITIALISED = 0


@dataclass(frozen=True)
class ProgramEvent:
    """An event: its name and its values, as in ``chain/facts.py``."""

    name: EventName
    values: Values


def events_in(logs: Sequence[str], program: Pubkey) -> tuple[ProgramEvent, ...]:
    """Return the events that a program logged, in order; up to the cut where a log is cut off.

    Parameters
    ----------
    logs : sequence of str
        The lines of a successful transaction's log.
    program : Pubkey
        The program whose events are wanted.

    Raises
    ------
    ValueError
        The log is not one that a validator writes, or the program logged what is no event of
        ours.
    """
    ours = str(program)
    running: list[str] = []
    found: list[ProgramEvent] = []
    for line in logs:
        if invoked := _INVOKE.fullmatch(line):
            if int(invoked[2]) != len(running) + 1:
                raise ValueError(f"the log calls depth {invoked[2]} from depth {len(running)}")
            running.append(invoked[1])
        elif ended := _ENDED.fullmatch(line):
            if not running or running.pop() != ended[1]:
                raise ValueError(f"the log ends {ended[1]}, which does not run")
        elif line == TRUNCATED:
            # Whoever relays a statement can make a log overflow. What is lost is in the accounts.
            return tuple(found)
        elif line.startswith(_DATA) and running and running[-1] == ours:
            event = _event(line.removeprefix(_DATA))
            if event is not None:
                found.append(event)
    if running:
        raise ValueError(f"the log does not end {running[-1]}")
    return tuple(found)


def _event(text: str) -> ProgramEvent | None:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("an event that is not base64") from error
    if len(data) < 2 or data[1] != EVENT_VERSION:
        raise ValueError(f"an event of another version: {data[:2].hex()}")
    if data[0] == _INITIALISED:
        return None
    if data[0] not in _LAYOUTS:
        raise ValueError(f"an event with the unknown tag {data[0]}")
    name, fields = _LAYOUTS[data[0]]
    values: Values = {}
    rest = data[2:]
    for field, kind in fields:
        values[field], rest = _field(rest, kind)
    if rest:
        raise ValueError(f"{name} with {len(rest)} bytes too many")
    return ProgramEvent(name, values)


def _field(data: bytes, kind: str) -> tuple[str | int, bytes]:
    if kind == "text":
        length = int(_field(data, "H")[0])
        if len(data) < 2 + length:
            raise ValueError("an event that is too short")
        return data[2 : 2 + length].decode(errors="replace"), data[2 + length :]
    sizes = {"digest": 32, "key": 32, "address": 20}
    size = sizes.get(kind) or struct.calcsize("<" + kind)
    taken, rest = data[:size], data[size:]
    if len(taken) < size:
        raise ValueError("an event that is too short")
    if kind == "digest":
        return "0x" + taken.hex(), rest
    if kind == "key":
        return account_address(taken), rest
    if kind == "address":
        return address_text(taken), rest
    return int(struct.unpack("<" + kind, taken)[0]), rest
