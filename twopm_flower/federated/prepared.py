"""A task that is ready for its first round, however it was prepared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twopm_flower.chain.base import ChainConnector
from twopm_flower.chain.outbox import Outbox
from twopm_flower.config import Settings
from twopm_flower.federated.callbacks import ChainRecorder
from twopm_flower.federated.task import TaskContext
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.statements import KeyDeal, Signed
from twopm_flower.records.terms import TrustMode


@dataclass(frozen=True)
class SimulationOptions:
    """Terms of a task that is made on the spot.

    Attributes
    ----------
    trust_mode : str
        ``shared-key``, ``one-time-key``, or ``plaintext`` for comparison.
    clip : float
        Largest absolute change of one weight in one round.
    min_contributors : int
        Fewest updates in a sum.
    colluders : int
        In ``one-time-key`` mode: nodes that may work together with the server and still
        learn no other node's update.
    excluded : tuple of str
        Patterns (``fnmatch``) of arrays that every node keeps to itself.
    enrol_timeout_s : float
        Bound of each enrolment exchange, in seconds.
    """

    trust_mode: TrustMode = "shared-key"
    clip: float = 1.0
    min_contributors: int = 3
    colluders: int = 1
    excluded: tuple[str, ...] = ()
    enrol_timeout_s: float = 180.0


@dataclass
class PreparedRun:
    """A task that is ready for its first round."""

    task: TaskContext
    deployment: Deployment
    key_deal: Signed[KeyDeal] | None
    connector: ChainConnector
    run_config: dict[str, Any]
    runs_folder: Path
    _closers: list[Callable[[], None]] = field(default_factory=list)

    def recorder(self, outbox: Path, settings: Settings) -> ChainRecorder:
        """Return the callback that records this run."""
        return ChainRecorder(
            Outbox(outbox, confirmations=chain.confirmations if (chain := settings.chain) else 1),
            self.connector,
            max_unrecorded_rounds=settings.coordinator.max_unrecorded_rounds,
            anchor_wait_s=settings.coordinator.anchor_wait_s,
            strict=self.task.shares_keys,
        )

    def close(self) -> None:
        """Stop what was started for this run alone."""
        for closer in reversed(self._closers):
            closer()
