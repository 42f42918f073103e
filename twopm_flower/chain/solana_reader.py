"""Reads our program on a Solana cluster, and believes only its accounts and its own events."""

from collections.abc import Iterator, Sequence
from typing import Any

from solders.pubkey import Pubkey

from twopm_flower.chain.facts import (
    Attestation,
    ChainEvent,
    ChainStatus,
    DataCommitment,
    EventName,
    Finalisation,
    Member,
    ReceiptAnchor,
    RegisteredNode,
    RoundRecord,
    TaskState,
)
from twopm_flower.chain.solana_accounts import SolanaAccounts
from twopm_flower.chain.solana_events import Values
from twopm_flower.chain.solana_history import COMMITMENT, Happened, SolanaHistory
from twopm_flower.chain.solana_identity import (
    Accounts,
    deployment_at,
    program_of,
)
from twopm_flower.chain.solana_program import why_not_ours
from twopm_flower.chain.solana_rpc import REQUEST_TIMEOUT_S, Endpoint, SolanaRpc
from twopm_flower.chain.solana_state import (
    ConfigAccount,
    NodeAccount,
    read_config,
    read_dataset_version,
    read_node,
    read_task,
)
from twopm_flower.errors import TransactionReverted, WrongChain
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import roster_digest, round_head
from twopm_flower.records.digest import ZERO_DIGEST

_LAGS = "Ask another endpoint: this one hides or makes up events, or lags behind."


class SolanaReader:
    """Reads our program, after making sure that it is ours.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        ``http://`` or ``https://`` addresses of nodes, asked in order, or what
        :func:`~twopm_flower.chain.solana_local.open_read_only` returns.
    deployment : Deployment
        The cluster and program to believe.
    request_timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        deployment: Deployment,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._rpc = SolanaRpc(endpoints, deployment.genesis_hash, timeout_s=request_timeout_s)
        self._deployment = deployment
        self._checked = False
        self._at = Accounts(program_of(deployment))
        self._accounts = SolanaAccounts(self._rpc, self._at.program)
        self._history = SolanaHistory(self._rpc, self._at.program)

    def deployment(self) -> Deployment:
        """Return the pinned deployment."""
        return self._deployment

    def check(self) -> None:
        """Check genesis, identities, program and config; done by itself before first use.

        Raises
        ------
        WrongChain
            One of them is not the pinned one, or the program can still be changed.
        ChainUnavailable
            Nobody answers.
        """
        pinned, program = self._deployment, self._at.program
        hint = f"Check the address of the chain ({self._rpc.name}) and the deployment file."
        genesis = self._rpc.genesis_hash()
        if deployment_at(bytes.fromhex(genesis[2:]), program) != pinned:
            raise WrongChain(
                f"cluster {genesis} and program {program} are not those of the deployment",
                hint=hint,
            )
        reason = why_not_ours(self._accounts.info(program), self._accounts.info)
        if reason is not None:
            raise WrongChain(f"{program} {reason}", hint=hint)
        config = self._accounts.one(self._at.config, read_config)
        expected = ConfigAccount(
            pinned.chain_id, pinned.node_registry, pinned.task_registry, pinned.data_registry
        )
        if config is None or config[0] != expected:
            raise WrongChain(
                f"the program {program} was initialised with {config and config[0]}, which is not"
                " this deployment",
                hint="Deploy it again, at another address, and initialise it at once.",
            )
        self._checked = True

    def head_block(self) -> int:
        """Return the number of the latest slot."""
        self._require_checked()
        return self._accounts.number("getSlot", {"commitment": COMMITMENT})

    def status(self) -> ChainStatus:
        """Return how the chain is doing."""
        self._require_checked()
        head = self._accounts.number("getSlot", {"commitment": COMMITMENT})
        final = self._accounts.number("getSlot", {"commitment": "finalized"})
        return ChainStatus(
            family=self._deployment.family,
            endpoint=self._rpc.name,
            chain_id=self._deployment.chain_id,
            head_block=head,
            final_block=final,
            head_time=self._time_of(final),
        )

    def block_hash(self, number: int) -> str | None:
        """Return the hash of a slot's block, or None where the slot has none."""
        self._require_checked()
        return self._history.block_hash(number)

    def events(self, first_block: int, last_block: int) -> tuple[ChainEvent, ...]:
        """Return all events of our program in these slots, in order."""
        self._require_checked()
        return self._history.events(self._at.program, first_block, last_block)

    def lost_events(self, task_id: str) -> bool:
        """Tell whether the log of a transaction that names a task overflowed: the rest is lost."""
        self._require_checked()
        return any(each.is_cut for each in self._history.about(self._at.task(task_id)))

    def registered_key(self, node: str) -> str | None:
        """Return a node's sealing key, or None when it is not registered."""
        found = self._node(node)
        return None if found is None or found.sealing_key == ZERO_DIGEST else found.sealing_key

    def registration_nonce(self, node: str) -> int:
        """Return the nonce that the node's next registration or departure has to carry."""
        found = self._node(node)
        return 0 if found is None else found.nonce

    def nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes on the register, in the order of their first registration."""
        self._require_checked()
        happened = self._history.about(self._at.config)
        seen = [
            str(event.values["node"])
            for each in happened
            for event in each.events
            if event.name == "node_registered"
        ]
        names = list(dict.fromkeys(seen))
        found = self._accounts.several([self._at.node(name) for name in names], read_node)
        return tuple(
            RegisteredNode(node=name, sealing_key=account.sealing_key)
            for name, account in zip(names, found, strict=True)
            if account is not None and account.sealing_key != ZERO_DIGEST
        )

    def data_commitments(self, node: str, dataset: str | None = None) -> tuple[DataCommitment, ...]:
        """Return a node's commitments, oldest first.

        Raises
        ------
        WrongChain
            The versions have gaps, or not as many as are stored: the endpoint hides some.
        """
        self._require_checked()
        where = self._at.node(node) if dataset is None else self._at.dataset(node, dataset)
        found = tuple(
            DataCommitment(
                node=node,
                dataset=str(values["dataset"]),
                version=int(values["version"]),
                commitment=str(values["commitment"]),
                samples=int(values["samples"]),
                **_place(happened),
            )
            for happened, values in self._told(where, "data_published", node=node)
            if dataset is None or values["dataset"] == dataset
        )
        versions: dict[str, list[int]] = {} if dataset is None else {dataset: []}
        for commitment in found:
            versions.setdefault(commitment.dataset, []).append(commitment.version)
        accounts = [self._at.dataset(node, name) for name in versions]
        stored = self._accounts.several(accounts, read_dataset_version)
        for (name, numbers), last in zip(versions.items(), stored, strict=True):
            if numbers != list(range(1, (last or 0) + 1)):
                raise WrongChain(
                    f"dataset {name} of {node} has {last or 0} versions, the events show {numbers}",
                    hint=_LAGS,
                )
        return found

    def task(self, task_id: str) -> TaskState:
        """Return a task.

        Raises
        ------
        TransactionReverted
            There is no such task (``UnknownTask``).
        """
        return self._known_task(task_id)[0]

    def members(self, task_id: str) -> tuple[Member, ...]:
        """Return the roster in the order of joining.

        Raises
        ------
        WrongChain
            The events do not add up to the stored roster digest: the endpoint hides some.
        """
        state, slot = self._known_task(task_id)
        roster = tuple(
            Member(
                node=str(values["node"]),
                samples=int(values["samples"]),
                data_commitment=str(values["data_commitment"]),
                sealing_key=str(values["sealing_key"]),
                index=int(values["index"]),
            )
            for _, values in self._task_told("member_joined", task_id, last_slot=slot)
        )
        in_order = [member.index for member in roster] == list(range(len(roster)))
        if not in_order or roster_digest(roster) != state.roster_digest:
            raise WrongChain(
                f"the events of task {task_id} do not add up to its roster {state.roster_digest}",
                hint=_LAGS,
            )
        return roster

    def round_records(self, task_id: str) -> tuple[RoundRecord, ...]:
        """Return all records in order, superseded ones included.

        Raises
        ------
        WrongChain
            The events do not add up to the stored head: the endpoint hides some.
        """
        self._known_task(task_id)
        return self._records(task_id)

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return one record, or None."""
        for record in self._records(task_id):
            if (record.round, record.attempt) == (round_number, attempt):
                return record
        return None

    def attestations(self, task_id: str) -> tuple[Attestation, ...]:
        """Return what quorums attested of a task's rounds, oldest first."""
        return tuple(
            Attestation(
                task_id=task_id,
                round=int(values["round"]),
                manifest_digest=str(values["manifest_digest"]),
                model_digest=str(values["model_digest"]),
                metrics_digest=str(values["metrics_digest"]),
                signers=int(values["signers"]),
                **_place(happened),
            )
            for happened, values in self._task_told("model_attested", task_id)
        )

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return how the task was finalised, or None."""
        for happened, values in self._task_told("task_finalised", task_id):
            return Finalisation(
                task_id=task_id,
                model_digest=str(values["model_digest"]),
                metrics_digest=str(values["metrics_digest"]),
                head=str(values["head"]),
                signers=int(values["signers"]),
                **_place(happened),
            )
        return None

    def receipt_anchor(self, issuer: str, root: str) -> ReceiptAnchor | None:
        """Return where an issuer anchored a batch, or None."""
        return self._anchored(self._at.program, issuer, root)

    def _anchored(self, account: Pubkey, issuer: str, root: str) -> ReceiptAnchor | None:
        self._require_checked()
        for happened, values in self._told(account, "receipts_anchored", issuer=issuer, root=root):
            return ReceiptAnchor(
                issuer=issuer, root=root, count=int(values["count"]), **_place(happened)
            )
        return None

    def _records(self, task_id: str) -> tuple[RoundRecord, ...]:
        found = self._task(task_id)
        if found is None:
            return ()
        state, slot = found
        records = tuple(
            RoundRecord(
                task_id=task_id,
                round=int(values["round"]),
                attempt=int(values["attempt"]),
                manifest_digest=str(values["manifest_digest"]),
                updates_root=str(values["updates_root"]),
                head=str(values["head"]),
                **_place(happened),
                gas_used=happened.units,
            )
            for happened, values in self._task_told("round_recorded", task_id, last_slot=slot)
        )
        head = ZERO_DIGEST
        for record in records:
            head = round_head(
                head,
                task_id,
                record.round,
                record.attempt,
                manifest_digest=record.manifest_digest,
                updates_root=record.updates_root,
            )
            if head != record.head:
                break
        if head != state.head or (records and records[-1].head != state.head):
            raise WrongChain(
                f"the records of task {task_id} do not add up to its head {state.head}",
                hint=_LAGS,
            )
        return records

    def _task_told(
        self, name: EventName, task_id: str, *, last_slot: int | None = None
    ) -> Iterator[tuple[Happened, Values]]:
        self._require_checked()
        return self._told(self._at.task(task_id), name, last_slot=last_slot, task_id=task_id)

    def _told(
        self, account: Pubkey, name: EventName, *, last_slot: int | None = None, **wanted: str
    ) -> Iterator[tuple[Happened, Values]]:
        # A transaction that names an account may do other things as well.
        for happened in self._history.about(account, last_slot=last_slot):
            for event in happened.events:
                if event.name != name:
                    continue
                if all(event.values[field] == value for field, value in wanted.items()):
                    yield happened, event.values

    def _time_of(self, slot: int) -> int:
        # A cluster does not know the time of every slot.
        answer = self._rpc.ask("getBlockTime", slot)
        return answer if isinstance(answer, int) else 0

    def _known_task(self, task_id: str) -> tuple[TaskState, int]:
        found = self._task(task_id)
        if found is None:
            raise TransactionReverted(
                f"there is no task {task_id}",
                error_name="UnknownTask",
                arguments={"taskId": task_id},
            )
        return found

    def _task(self, task_id: str) -> tuple[TaskState, int] | None:
        self._require_checked()
        found = self._accounts.one(self._at.task(task_id), read_task)
        if found is not None and found[0].task_id != task_id:
            raise self._rpc.unusable("getAccountInfo", "another task")
        return found

    def _node(self, node: str) -> NodeAccount | None:
        self._require_checked()
        found = self._accounts.one(self._at.node(node), read_node)
        if found is not None and found[0].node != node:
            raise self._rpc.unusable("getAccountInfo", "another node")
        return None if found is None else found[0]

    def _require_checked(self) -> None:
        if not self._checked:
            self.check()


def _place(happened: Happened) -> dict[str, Any]:
    return {
        "block_number": happened.slot,
        "block_hash": happened.block_hash,
        "transaction_hash": happened.transaction_hash,
    }
