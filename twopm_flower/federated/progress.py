"""How far a node is in a task: the ledger of what it opened, signed and saw on chain."""

from typing import Self

from pydantic import Field

from twopm_flower.errors import ProtocolViolation
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.fields import Digest, Record, Round, Uint32

FORGOTTEN = "forgotten by its operator"


def is_forgotten(halted: str | None) -> bool:
    """Tell a task that was forgotten from one that the node stopped in."""
    return halted is not None and halted.startswith(FORGOTTEN)


class OwnUpdate(Record):
    """The update that this node sent last."""

    round: Round
    attempt: Round
    update_digest: Digest


class Pending(Record):
    """A manifest that this node accepted and has not seen on chain yet."""

    round: Round
    attempt: Round
    manifest_digest: Digest
    updates_root: Digest


class Progress(Record):
    """A node's ledger of one task; every change gives a new value that is stored at once.

    Attributes
    ----------
    opened_round : int
        The last round whose aggregate was decrypted; 0 before the first.
    opened_manifest : str
        Digest of that round's manifest; zero before the first.
    model_digest : str or None
        Digest of the model of that round; None before the initial model arrived.
    update : OwnUpdate or None
        The update sent last.
    fingerprinted : dict
        ``"round/attempt"`` to the manifest whose fingerprints were signed.
    evaluated : tuple of int
        Model rounds whose masked evaluation was sent: each once only.
    pending : tuple
        Accepted manifests that are not confirmed on chain.
    excluded_in_a_row : int
        Consecutive rounds in which the own update was left out.
    guarded : bool
        Whether a guard was made for this task, so that one that was deleted is missed.
    halted : str or None
        Why this node stopped for good; an operator looks and resumes it.
    """

    opened_round: Uint32 = 0
    opened_manifest: Digest = ZERO_DIGEST
    model_digest: Digest | None = None
    update: OwnUpdate | None = None
    fingerprinted: dict[str, Digest] = Field(default_factory=dict)
    evaluated: tuple[Uint32, ...] = ()
    pending: tuple[Pending, ...] = ()
    excluded_in_a_row: Uint32 = 0
    guarded: bool = False
    halted: str | None = None

    def changed(self, **fields: object) -> Self:
        """Return a copy with some fields replaced."""
        return self.model_copy(update=fields)

    def with_fingerprint(self, round_: int, attempt: int, manifest_digest: str) -> Self:
        """Remember that fingerprints for a manifest are about to be signed.

        Raises
        ------
        ProtocolViolation
            The round was opened, a later attempt was signed for, or another manifest for the
            same attempt: two different sums over almost the same updates would give one away
            by subtraction.
        """
        if round_ <= self.opened_round:
            raise ProtocolViolation(
                f"round {round_} was opened already; fingerprints for another sum are refused"
            )
        later = max((a for r, a in self._signed_attempts() if r == round_), default=attempt)
        if attempt < later:
            raise ProtocolViolation(
                f"attempt {attempt} of round {round_} was superseded by attempt {later}, "
                "which this node signed for"
            )
        key = f"{round_}/{attempt}"
        known = self.fingerprinted.get(key, manifest_digest)
        if known != manifest_digest:
            raise ProtocolViolation(
                f"the server sent two manifests for round {round_}, attempt {attempt}: "
                f"{known} and {manifest_digest}"
            )
        return self.changed(fingerprinted={**self.fingerprinted, key: manifest_digest})

    def _signed_attempts(self) -> list[tuple[int, int]]:
        pairs = (key.split("/") for key in self.fingerprinted)
        return [(int(round_), int(attempt)) for round_, attempt in pairs]
