"""Reads a ledger, and believes only what it has replayed itself."""

import threading
import time

from twopm_flower.chain.calls import hexadecimal
from twopm_flower.chain.facts import (
    Attestation,
    ChainEvent,
    ChainStatus,
    DataCommitment,
    Finalisation,
    Inclusion,
    Member,
    Receipt,
    ReceiptAnchor,
    RegisteredNode,
    RoundRecord,
    TaskState,
)
from twopm_flower.chain.ledger_checks import unknown_task
from twopm_flower.chain.ledger_records import Entry
from twopm_flower.chain.ledger_replay import Replay
from twopm_flower.chain.ledger_source import Source
from twopm_flower.chain.ledger_state import TaskRecord
from twopm_flower.errors import ChainUnavailable, WrongChain
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.fields import checksum_address

WAIT_S = 120.0
POLL_S = 0.05
_ADVICE = "Compare with what other readers were given, and ask the ledger's operator."


class LedgerReader:
    """Follows a ledger from its pinned genesis; see :class:`~twopm_flower.chain.base.ChainReader`.

    Every entry is checked once: that it chains, both signatures, and the rules. A service can
    withhold entries, or show different ones to different readers; a reader that has seen one
    of two notices when it is shown the other.

    Parameters
    ----------
    source : Source
        Where entries come from.
    deployment : Deployment
        The ledger to believe.
    """

    def __init__(self, source: Source, deployment: Deployment) -> None:
        self._source = source
        self._deployment = deployment
        self._replay: Replay | None = None
        self._lock = threading.RLock()

    def deployment(self) -> Deployment:
        """Return the pinned deployment."""
        return self._deployment

    def check(self) -> None:
        """Check that the source's ledger is the pinned one; done by itself before first use.

        Raises
        ------
        WrongChain
            It has another genesis, or the deployment does not follow from it.
        ChainUnavailable
            Nobody answers.
        """
        pinned, genesis = self._deployment, self._source.genesis()
        hint = f"Check the address of the ledger ({self._source.name}) and the deployment file."
        if genesis.digest != pinned.genesis_hash:
            raise WrongChain(
                f"the ledger's genesis is {genesis.digest}, not {pinned.genesis_hash}", hint=hint
            )
        # Where the entries are kept does not follow from the genesis, and nothing is signed for it.
        place = {"family": pinned.family, "program": pinned.program}
        derived = genesis.deployment().model_copy(update=place)
        if derived != pinned:
            raise WrongChain(
                f"the deployment does not follow from the genesis {genesis.digest}", hint=hint
            )
        with self._lock:
            if self._replay is None:
                self._replay = Replay(genesis)

    def head_block(self) -> int:
        """Return the number of the last entry."""
        return self._current().head

    def status(self) -> ChainStatus:
        """Return how the ledger is doing; an entry is final at once."""
        replay = self._current()
        return ChainStatus(
            family=self._deployment.family,
            endpoint=self._source.name,
            chain_id=self._deployment.chain_id,
            head_block=replay.head,
            final_block=replay.head,
            head_time=replay.times[replay.head],
        )

    def block_hash(self, number: int) -> str | None:
        """Return the digest of an entry, or None where there is none with this number."""
        replay = self._current()
        return replay.digests[number] if 0 <= number <= replay.head else None

    def events(self, first_block: int, last_block: int) -> tuple[ChainEvent, ...]:
        """Return the events of these entries, both included, in order."""
        return tuple(self._current().events[max(0, first_block - 1) : max(0, last_block)])

    def registered_key(self, node: str) -> str | None:
        """Return a node's sealing key, or None when it is not registered."""
        known = self._current().state.nodes.get(checksum_address(node))
        return None if known is None else known.sealing_key

    def registration_nonce(self, node: str) -> int:
        """Return the nonce that the node's next registration or departure has to carry."""
        known = self._current().state.nodes.get(checksum_address(node))
        return 0 if known is None else known.nonce

    def nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes on the register, in the order of their first registration."""
        with self._lock:
            return self._current().state.registered_nodes()

    def data_commitments(self, node: str, dataset: str | None = None) -> tuple[DataCommitment, ...]:
        """Return a node's commitments, oldest first; of one dataset, or of all."""
        known = self._current().state.data.get(checksum_address(node), ())
        return tuple(one for one in known if dataset in (None, one.dataset))

    def task(self, task_id: str) -> TaskState:
        """Return a task.

        Raises
        ------
        TransactionReverted
            There is no such task (``UnknownTask``).
        """
        return self._task(task_id).state

    def members(self, task_id: str) -> tuple[Member, ...]:
        """Return the roster in the order of joining."""
        with self._lock:
            return tuple(self._task(task_id).members.values())

    def round_records(self, task_id: str) -> tuple[RoundRecord, ...]:
        """Return all records in order, superseded ones included."""
        return tuple(self._task(task_id).records)

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return one record, or None."""
        for record in self._records(task_id):
            if (record.round, record.attempt) == (round_number, attempt):
                return record
        return None

    def attestations(self, task_id: str) -> tuple[Attestation, ...]:
        """Return what quorums attested of a task's rounds, oldest first."""
        task = self._known_task(task_id)
        return () if task is None else tuple(task.attestations)

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return how the task was finalised, or None."""
        task = self._known_task(task_id)
        return None if task is None else task.finalisation

    def receipt_anchor(self, issuer: str, root: str) -> ReceiptAnchor | None:
        """Return where an issuer anchored a batch, or None."""
        return self._current().state.anchors.get((checksum_address(issuer), root))

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return which entry an action became, or None."""
        replay = self._current()
        number = replay.numbers.get(transaction_hash)
        if number is None:
            return None
        return Inclusion(
            transaction_hash=transaction_hash,
            block_number=number,
            block_hash=replay.digests[number],
            succeeded=True,
            confirmations=replay.head - number + 1,
            final=True,
        )

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until an action is an entry.

        Raises
        ------
        ChainUnavailable
            Not in time.
        """
        limit = WAIT_S if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        while (found := self.inclusion(transaction_hash)) is None:
            if time.monotonic() >= deadline:
                raise ChainUnavailable(
                    f"action {transaction_hash} is no entry of the ledger after {limit:g} s",
                    hint="Send it again: nothing is done twice.",
                )
            time.sleep(POLL_S)
        return Receipt(transaction_hash, found.block_number, gas_used=0, status=1)

    def _task(self, task_id: str) -> TaskRecord:
        task = self._known_task(task_id)
        if task is None:
            raise unknown_task("getTask", task_id)
        return task

    def _known_task(self, task_id: str) -> TaskRecord | None:
        hexadecimal(task_id, 32)
        return self._current().state.tasks.get(task_id)

    def _records(self, task_id: str) -> tuple[RoundRecord, ...]:
        task = self._known_task(task_id)
        return () if task is None else tuple(task.records)

    def _current(self) -> Replay:
        """Return the ledger with all entries that the source has by now."""
        with self._lock:
            if self._replay is None:
                self.check()
            replay = self._replay
            if replay is None:
                raise WrongChain("the ledger was not checked")
            while True:
                # From the last one that we know, so that another in its place is noticed.
                head, entries = self._source.entries(max(1, replay.head))
                fresh = entries[1:] if replay.head else entries
                self._check_known(replay, head, entries)
                if head <= replay.head:
                    return replay
                if not fresh:
                    raise WrongChain(
                        f"{self._source.name} says that there are {head} entries, "
                        f"and shows {replay.head}",
                        hint=_ADVICE,
                    )
                for entry in fresh:
                    replay.take(entry)

    def _check_known(self, replay: Replay, head: int, entries: list[Entry]) -> None:
        if head < replay.head:
            raise WrongChain(
                f"{self._source.name} has {head} entries, and had {replay.head} before",
                hint=_ADVICE,
            )
        if replay.head and (not entries or entries[0].digest != replay.digests[-1]):
            raise WrongChain(
                f"{self._source.name} shows another entry {replay.head} than before: "
                "this ledger was forked",
                hint=_ADVICE,
            )
