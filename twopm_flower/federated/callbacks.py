"""What can be hooked into a run of the strategy, and the hook that records it on chain."""

import logging
import time

from twopm_flower.chain.base import (
    ChainConnector,
    ChainReader,
    FinaliseCall,
    FinalRound,
    RoundCall,
)
from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_worker import OutboxWorker
from twopm_flower.errors import ChainUnavailable, QuorumError
from twopm_flower.records.bundle import ChainRecord, Finalisation, RunBundle
from twopm_flower.records.chaining import next_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import ModelStatement

log = logging.getLogger(__name__)


class RoundCallback:
    """Base of the callbacks: does nothing. Each method is called by the strategy, in order."""

    def run_started(self) -> None:
        """Is called once, before the first exchange."""

    def before_round(self, round_: int) -> None:
        """Is called before the first train exchange of a round, and may hold it."""

    def manifest_committed(self, manifest: RoundManifest) -> None:
        """Is called when the server has added the updates, before any node sees the manifest."""

    def round_completed(self, bundle: RunBundle) -> None:
        """Is called when every survivor has signed its fingerprints."""

    def run_completed(
        self, bundle: RunBundle, statement: ModelStatement, signatures: dict[str, str]
    ) -> None:
        """Is called when a quorum has signed the final model."""

    def run_ended(self) -> None:
        """Is called once at the end, also when the run failed."""


class ChainRecorder(RoundCallback):
    """Records each manifest on chain and finalises the task, through a durable outbox.

    Parameters
    ----------
    outbox : Outbox
        Where records wait, durably.
    connector : ChainConnector
        Where they go.
    max_unrecorded_rounds : int
        How many manifests may be on their way before the next round is held.
    anchor_wait_s : float
        How long a round is held, and how long delivery is awaited at the end, in seconds.
    strict : bool
        Hold each round until its manifest is on chain: where keys are shared out, the record
        commits to the survivors, and nothing opens before it.
    """

    def __init__(
        self,
        outbox: Outbox,
        connector: ChainConnector,
        *,
        max_unrecorded_rounds: int,
        anchor_wait_s: float,
        strict: bool = False,
    ) -> None:
        self._outbox = outbox
        self._worker = OutboxWorker(outbox, connector)
        self._max_unrecorded = max_unrecorded_rounds
        self._anchor_wait_s = anchor_wait_s
        self._strict = strict
        self._head = self._previous_head = ZERO_DIGEST

    def run_started(self) -> None:
        """Start delivering."""
        self._worker.start()

    def run_ended(self) -> None:
        """Stop delivering; what is left stays in the outbox."""
        self._worker.stop()

    def before_round(self, round_: int) -> None:
        """Hold the round while too many manifests are not on chain.

        Raises
        ------
        QuorumError
            Still too many after the wait.
        """
        deadline = time.monotonic() + self._anchor_wait_s
        # This round's own manifest will be one more on its way when nodes look at the chain.
        room = max(1, self._max_unrecorded)
        while (count := self._worker.unrecorded()) >= room:
            self._raise_alarm()
            if time.monotonic() >= deadline:
                raise QuorumError(
                    f"round {round_} was held for {self._anchor_wait_s:.0f} s: "
                    f"{count} rounds are not on chain",
                    hint="Bring the chain back and run 'twopm chain deliver'.",
                )
            log.warning("round %d waits: %d rounds are not on chain yet", round_, count)
            time.sleep(min(2.0, self._anchor_wait_s / 10))

    def manifest_committed(self, manifest: RoundManifest) -> None:
        """Queue the record; delivery happens in the background.

        Raises
        ------
        ChainUnavailable
            Recording is strict and the record could not be delivered in time.
        """
        self._raise_alarm()
        self._previous_head = self._head
        self._head = next_head(self._previous_head, manifest)
        self._worker.enqueue(
            RoundCall(
                task_id=manifest.task_id,
                round=manifest.round,
                attempt=manifest.attempt,
                manifest_digest=manifest.digest,
                updates_root=manifest.updates_root,
            )
        )
        if self._strict:
            self._await_record(manifest)

    def run_completed(
        self, bundle: RunBundle, statement: ModelStatement, signatures: dict[str, str]
    ) -> None:
        """Finalise the task and wait until everything is on chain.

        Raises
        ------
        ChainUnavailable
            Not everything could be delivered; the message names the rounds and the command.
        """
        manifest = bundle.rounds[-1].manifest
        self._worker.enqueue(
            FinaliseCall(
                task_id=manifest.task_id,
                last=FinalRound(
                    previous_head=self._previous_head,
                    attempt=manifest.attempt,
                    manifest_digest=manifest.digest,
                    updates_root=manifest.updates_root,
                ),
                model_digest=statement.model_digest,
                metrics_digest=statement.metrics_digest,
                signatures=signatures,
            )
        )
        try:
            self._worker.flush(self._anchor_wait_s)
        except ChainUnavailable as error:
            calls = [entry.call for entry in self._outbox.pending()]
            rounds = [call.round for call in calls if isinstance(call, RoundCall)]
            raise ChainUnavailable(
                "the run is complete, but its finalisation"
                + (f" and rounds {rounds} are" if rounds else " is")
                + " not on chain",
                hint=f"Nothing is lost; run 'twopm chain deliver {manifest.task_id}'.",
            ) from error

    def _await_record(self, manifest: RoundManifest) -> None:
        try:
            self._worker.flush(self._anchor_wait_s)
        except ChainUnavailable as error:
            raise ChainUnavailable(
                f"round {manifest.round} waited {self._anchor_wait_s:.0f} s for its record on "
                "chain; nodes open nothing before it is there",
                hint=f"Bring the chain back; 'twopm chain deliver {manifest.task_id}' delivers "
                "what waits.",
            ) from error

    def _raise_alarm(self) -> None:
        if self._worker.alarm is not None:
            raise self._worker.alarm


def records_on_chain(
    reader: ChainReader, task_id: str
) -> tuple[dict[tuple[int, int], ChainRecord], Finalisation | None]:
    """Return what the chain holds of a task, as bundles name it."""
    records = {
        (record.round, record.attempt): ChainRecord(
            transaction_hash=record.transaction_hash,
            block_number=record.block_number,
            block_hash=record.block_hash,
            head=record.head,
            gas_used=record.gas_used or 0,
        )
        for record in reader.round_records(task_id)
    }
    final = reader.finalisation(task_id)
    if final is None:
        return records, None
    return records, Finalisation(
        transaction_hash=final.transaction_hash,
        block_number=final.block_number,
        model_digest=final.model_digest,
        metrics_digest=final.metrics_digest,
    )
