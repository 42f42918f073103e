"""What a coordinator asks a chain to do, complete enough to be stored and done later."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from twopm_flower.errors import ChainError


@dataclass(frozen=True)
class FinalRound:
    """The last record as it was made; the contract checks that it hashes to the stored head."""

    previous_head: str
    attempt: int
    manifest_digest: str
    updates_root: str

    def __post_init__(self) -> None:
        for digest in (self.previous_head, self.manifest_digest, self.updates_root):
            hexadecimal(digest, 32)


@dataclass(frozen=True)
class RoundCall:
    """What is to be recorded of a round; malformed digests raise ChainError."""

    task_id: str
    round: int
    attempt: int
    manifest_digest: str
    updates_root: str

    def __post_init__(self) -> None:
        for digest in (self.task_id, self.manifest_digest, self.updates_root):
            hexadecimal(digest, 32)


@dataclass(frozen=True)
class ModelCall:
    """A model that members signed; `signatures` maps each signing member to its signature."""

    task_id: str
    last: FinalRound
    model_digest: str
    metrics_digest: str
    signatures: Mapping[str, str]

    def __post_init__(self) -> None:
        for digest in (self.task_id, self.model_digest, self.metrics_digest):
            hexadecimal(digest, 32)
        for signature in self.signatures.values():
            hexadecimal(signature, 65)


@dataclass(frozen=True)
class FinaliseCall(ModelCall):
    """What ends a task."""


@dataclass(frozen=True)
class AttestCall(ModelCall):
    """What attests the model of the last recorded round of a task that goes on.

    `round` is that round.
    """

    round: int


@dataclass(frozen=True)
class AnchorCall:
    """What anchors a batch of receipts."""

    root: str
    count: int

    def __post_init__(self) -> None:
        hexadecimal(self.root, 32)


@dataclass(frozen=True)
class Joining:
    """A node's signed consent to take part in a task: the fields of its ``Membership``."""

    node: str
    samples: int
    data_commitment: str
    sealing_key: str
    signature: str


Call = RoundCall | FinaliseCall | AttestCall | AnchorCall
"""All that an outbox can deliver."""


@dataclass(frozen=True)
class SignedTransaction:
    """Bytes that may be broadcast any number of times and take effect at most once.

    Attributes
    ----------
    raw : bytes
        As they are broadcast.
    transaction_hash : str
        What the chain finds the transaction by.
    nonce : int or None
        The nonce that it uses up; None where a chain has none.
    fee : int
        What it bids at most per unit of work, in the chain's smallest unit.
    expires_at : int or None
        The last block that it can get into, where transactions expire.
    """

    raw: bytes
    transaction_hash: str
    nonce: int | None = None
    fee: int = 0
    expires_at: int | None = None


def hexadecimal(text: str, size: int) -> bytes:
    """Return the bytes that ``0x`` and hexadecimal digits stand for.

    Parameters
    ----------
    text : str
        Lower case, so that equal bytes have equal text.
    size : int
        How many bytes it has to stand for.

    Raises
    ------
    ChainError
        Anything else: an encoder further down would pad it silently.
    """
    if not re.fullmatch(rf"0x[0-9a-f]{{{2 * size}}}", text):
        raise ChainError(f"{text[:140]!r} is not {size} bytes in lower-case hexadecimal")
    return bytes.fromhex(text[2:])
