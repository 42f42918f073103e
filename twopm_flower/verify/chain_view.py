"""What the verifier reads from a chain, whoever reads it: the chain connectors fit as they are."""

from collections.abc import Sequence
from typing import Protocol

from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import ChainedMember


class TaskView(Protocol):
    """What the task registry stores of a task."""

    @property
    def state(self) -> str:
        """One of "open", "running", "finalised" and "cancelled"."""
        ...

    @property
    def terms_digest(self) -> str:
        """Digest of the terms."""
        ...

    @property
    def roster_digest(self) -> str:
        """Chained digest of the memberships."""
        ...

    @property
    def members(self) -> int:
        """How many members there are."""
        ...

    @property
    def rounds(self) -> int:
        """Planned rounds."""
        ...

    @property
    def min_contributors(self) -> int:
        """Fewest members."""
        ...

    @property
    def quorum(self) -> int:
        """Fewest signatures under a final model."""
        ...

    @property
    def max_samples(self) -> int:
        """Largest number of samples of one member."""
        ...

    @property
    def last_round(self) -> int:
        """Round of the last record."""
        ...

    @property
    def last_attempt(self) -> int:
        """Attempt of the last record."""
        ...

    @property
    def head(self) -> str:
        """Chained digest of all records."""
        ...

    @property
    def model_digest(self) -> str | None:
        """The final model."""
        ...


class RecordView(Protocol):
    """A recorded attempt of a round."""

    @property
    def round(self) -> int:
        """The round."""
        ...

    @property
    def attempt(self) -> int:
        """The attempt."""
        ...

    @property
    def manifest_digest(self) -> str:
        """Digest of the manifest."""
        ...

    @property
    def updates_root(self) -> str:
        """Merkle root of the updates."""
        ...

    @property
    def head(self) -> str:
        """Chained digest up to this record."""
        ...

    @property
    def block_number(self) -> int:
        """The block's number."""
        ...

    @property
    def block_hash(self) -> str:
        """The block's hash."""
        ...

    @property
    def transaction_hash(self) -> str:
        """The transaction's hash."""
        ...

    @property
    def gas_used(self) -> int | None:
        """Gas of the transaction, where the chain tells."""
        ...


class FinalView(Protocol):
    """How a task was finalised."""

    @property
    def model_digest(self) -> str:
        """The final model."""
        ...

    @property
    def metrics_digest(self) -> str:
        """Metric sums of the last round."""
        ...

    @property
    def head(self) -> str:
        """Chained digest of all records."""
        ...

    @property
    def signers(self) -> int:
        """How many members signed."""
        ...

    @property
    def block_number(self) -> int:
        """The block's number."""
        ...

    @property
    def transaction_hash(self) -> str:
        """The transaction's hash."""
        ...


class AnchorView(Protocol):
    """A batch of receipts that an issuer anchored."""

    @property
    def issuer(self) -> str:
        """The account that anchored it."""
        ...

    @property
    def root(self) -> str:
        """Merkle root of the batch."""
        ...

    @property
    def count(self) -> int:
        """How many receipts it has."""
        ...

    @property
    def block_number(self) -> int:
        """The block's number."""
        ...

    @property
    def transaction_hash(self) -> str:
        """The transaction's hash."""
        ...


class ChainView(Protocol):
    """A reader of one deployment. Any method may raise an error of ours."""

    def check(self) -> None:
        """Check that the endpoint serves the chain and the contracts that it is pinned to."""
        ...

    def deployment(self) -> Deployment:
        """Return what the reader is pinned to."""
        ...

    def task(self, task_id: str) -> TaskView:
        """Return a task."""
        ...

    def members(self, task_id: str) -> Sequence[ChainedMember]:
        """Return the roster, in the order of joining."""
        ...

    def round_records(self, task_id: str) -> Sequence[RecordView]:
        """Return all records in order, those of superseded attempts included."""
        ...

    def finalisation(self, task_id: str) -> FinalView | None:
        """Return how the task was finalised, or None."""
        ...


class ReceiptChainView(ChainView, Protocol):
    """A reader of one deployment that knows anchored batches of receipts, too."""

    def receipt_anchor(self, issuer: str, root: str) -> AnchorView | None:
        """Return where an issuer anchored a batch, or None."""
        ...
