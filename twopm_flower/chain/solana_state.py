"""What our Solana program stores, read byte by byte; anything else than its accounts is refused.

``docs/solana.md`` is the definition; integers are little-endian. Each ``read_*`` takes an
account's bytes and raises ValueError when they are not that kind of account.
"""

import struct
from dataclasses import dataclass

from twopm_flower.chain.facts import TaskPhase, TaskState
from twopm_flower.chain.solana_identity import account_address, address_text

LAYOUT_VERSION = 1
CONFIG, NODE, DATASET, COORDINATOR, TASK, MEMBER, TALLY, ANCHOR = range(1, 9)
TALLY_HEADER_BYTES = 208
_PHASES: dict[int, TaskPhase] = {1: "open", 2: "running", 3: "finalised", 4: "cancelled"}


@dataclass(frozen=True)
class ConfigAccount:
    """What the program believes of its chain: id, and three registry addresses."""

    chain_id: int
    node_registry: str
    task_registry: str
    data_registry: str


@dataclass(frozen=True)
class NodeAccount:
    """A node's next nonce and sealing key; the key is zero when it is not registered."""

    node: str
    nonce: int
    sealing_key: str


@dataclass(frozen=True)
class TallyAccount:
    """Signatures over one statement so far; `counted` tells by member index."""

    task_id: str
    head: str
    round: int
    signers: int
    counted: frozenset[int]


@dataclass(frozen=True)
class AnchorAccount:
    """An anchored batch: in which slot, and how many receipts."""

    issuer: bytes
    root: str
    slot: int
    count: int


def read_config(data: bytes) -> ConfigAccount:
    """Read the config."""
    _check(data, CONFIG, 176)
    (chain_id,) = struct.unpack_from("<Q", data, 8)
    addresses = (address_text(data[start : start + 20]) for start in (16, 36, 56))
    return ConfigAccount(chain_id, *addresses)


def read_node(data: bytes) -> NodeAccount:
    """Read a node's registration."""
    _check(data, NODE, 72)
    (nonce,) = struct.unpack_from("<Q", data, 32)
    return NodeAccount(address_text(data[8:28]), nonce, _hex(data[40:72]))


def read_dataset_version(data: bytes) -> int:
    """Read the last version of a dataset."""
    _check(data, DATASET, 112)
    return int(struct.unpack_from("<I", data, 64)[0])


def read_coordinator(data: bytes) -> tuple[bytes, int]:
    """Read a coordinator's key and the counter of its next task."""
    _check(data, COORDINATOR, 48)
    (count,) = struct.unpack_from("<Q", data, 40)
    return data[8:40], count


def read_task(data: bytes) -> TaskState:
    """Read a task."""
    _check(data, TASK, 264)
    max_samples, rounds, last_round, last_attempt, members, least, quorum, state = (
        struct.unpack_from("<QIIIIHHB", data, 232)
    )
    phase = _PHASES.get(state)
    if phase is None:
        raise ValueError(f"a task in state {state}")
    return TaskState(
        task_id=_hex(data[8:40]),
        coordinator=account_address(data[40:72]),
        terms_digest=_hex(data[72:104]),
        state=phase,
        rounds=rounds,
        last_round=last_round,
        last_attempt=last_attempt,
        head=_hex(data[136:168]),
        roster_digest=_hex(data[104:136]),
        members=members,
        min_contributors=least,
        quorum=quorum,
        max_samples=max_samples,
        model_digest=_hex(data[168:200]) if phase == "finalised" else None,
    )


def read_member(data: bytes) -> tuple[str, str, int]:
    """Read whose membership of which task it is, and the place in the roster."""
    _check(data, MEMBER, 136)
    (index,) = struct.unpack_from("<I", data, 60)
    return _hex(data[8:40]), address_text(data[40:60]), index


def read_tally(data: bytes) -> TallyAccount:
    """Read a tally."""
    if len(data) % 8 or len(data) < TALLY_HEADER_BYTES:
        raise ValueError(f"a tally of {len(data)} bytes")
    _check(data, TALLY, len(data))
    round_number, signers = struct.unpack_from("<II", data, 200)
    bitmap = data[TALLY_HEADER_BYTES:]
    counted = frozenset(i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> i % 8 & 1)
    return TallyAccount(_hex(data[40:72]), _hex(data[72:104]), round_number, signers, counted)


def read_anchor(data: bytes) -> AnchorAccount:
    """Read an anchored batch."""
    _check(data, ANCHOR, 96)
    (slot,) = struct.unpack_from("<Q", data, 72)
    (count,) = struct.unpack_from("<I", data, 88)
    return AnchorAccount(data[8:40], _hex(data[40:72]), slot, count)


def _check(data: bytes, kind: int, length: int) -> None:
    if len(data) != length:
        raise ValueError(f"{len(data)} bytes, not {length}")
    if data[0] != kind or data[1] != LAYOUT_VERSION:
        raise ValueError(f"kind {data[0]}, version {data[1]}; not {kind}, {LAYOUT_VERSION}")


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
