"""Reads our contracts on any chain that speaks Ethereum's JSON-RPC, and believes only ours."""

from collections.abc import Sequence
from typing import Any, cast

from eth_typing import BlockNumber
from eth_utils.address import to_checksum_address
from web3.contract import Contract as Web3Contract
from web3.exceptions import ABIEventNotFound, BlockNotFound
from web3.types import EventData

from twopm_flower.chain.base import (
    Attestation,
    ChainEvent,
    ChainStatus,
    DataCommitment,
    Finalisation,
    Member,
    ReceiptAnchor,
    RegisteredNode,
    RoundRecord,
    TaskPhase,
    TaskState,
)
from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.evm_events import read_event
from twopm_flower.chain.evm_rpc import REQUEST_TIMEOUT_S, Endpoint, EvmRpc, bytes32, hex32
from twopm_flower.errors import ChainError, WrongChain
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import roster_digest, round_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.statements import Domain

_PHASES: tuple[TaskPhase | None, ...] = (None, "open", "running", "finalised", "cancelled")


class EvmReader:
    """Reads our contracts, after making sure that they are ours.

    Parameters
    ----------
    endpoint : Endpoint
        ``http://`` or ``https://`` address of a node, several of them, or what
        :func:`~twopm_flower.chain.devnet.open_read_only` returns.
    deployment : Deployment
        The chain and contracts to believe.
    request_timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        deployment: Deployment,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._rpc = EvmRpc(endpoint, timeout_s=request_timeout_s, pinned=deployment)
        self._deployment = deployment
        self._checked = False
        self._addresses = dict(
            zip(
                CONTRACTS,
                (
                    deployment.node_registry,
                    deployment.task_registry,
                    deployment.data_registry,
                    deployment.receipt_registry,
                ),
                strict=True,
            )
        )
        self._nodes, self._tasks, self._data, self._receipts = (
            self._contract(name, address) for name, address in self._addresses.items()
        )

    def deployment(self) -> Deployment:
        """Return the pinned deployment."""
        return self._deployment

    def check(self) -> None:
        """Check chain id, genesis and the contracts' code; done by itself before first use.

        Raises
        ------
        WrongChain
            One of them is not the pinned one.
        ChainUnavailable
            Nobody answers.
        """
        pinned = self._deployment
        with self._rpc.asking("the check of the chain") as web3:
            chain_id = web3.eth.chain_id
            genesis = web3.eth.get_block(BlockNumber(0))["hash"]
            codes = {
                name: web3.eth.get_code(to_checksum_address(address))
                for name, address in self._addresses.items()
            }
        hint = f"Check the address of the chain ({self._rpc.name}) and the deployment file."
        if chain_id != pinned.chain_id:
            raise WrongChain(f"chain id is {chain_id}, not {pinned.chain_id}", hint=hint)
        if hex32(genesis) != pinned.genesis_hash:
            raise WrongChain(
                f"first block is {hex32(genesis)}, not {pinned.genesis_hash}", hint=hint
            )
        for name, code in codes.items():
            address = to_checksum_address(self._addresses[name])
            domain = Domain(chain_id=chain_id, verifying_contract=address)
            if bytes(code) != load_contract(name).runtime_at(domain, pinned.node_registry):
                raise WrongChain(
                    f"the code of {name} is not this version's, or is bound to another"
                    " node registry",
                    hint=hint,
                )
        self._checked = True

    def head_block(self) -> int:
        """Return the number of the latest block."""
        self._require_checked()
        with self._rpc.asking("eth_blockNumber") as web3:
            return int(web3.eth.block_number)

    def status(self) -> ChainStatus:
        """Return how the chain is doing."""
        self._require_checked()
        with self._rpc.asking("the latest blocks") as web3:
            latest = web3.eth.get_block("latest")
            final = web3.eth.get_block("finalized")
        return ChainStatus(
            family=self._deployment.family,
            endpoint=self._rpc.name,
            chain_id=self._deployment.chain_id,
            head_block=int(latest["number"]),
            final_block=int(final["number"]),
            head_time=int(latest["timestamp"]),
        )

    def block_hash(self, number: int) -> str | None:
        """Return the hash of a block, or None where there is none with this number."""
        self._require_checked()
        with self._rpc.asking("eth_getBlockByNumber") as web3:
            try:
                return hex32(web3.eth.get_block(BlockNumber(number))["hash"])
            except BlockNotFound:
                return None

    def events(self, first_block: int, last_block: int) -> tuple[ChainEvent, ...]:
        """Return all events of our contracts in these blocks, in order."""
        self._require_checked()
        addresses = [to_checksum_address(address) for address in self._addresses.values()]
        with self._rpc.asking("eth_getLogs") as web3:
            logs = web3.eth.get_logs(
                {
                    "address": addresses,
                    "fromBlock": BlockNumber(first_block),
                    "toBlock": BlockNumber(last_block),
                }
            )
            contracts = {
                contract.address: contract
                for contract in (self._nodes, self._tasks, self._data, self._receipts)
            }
            found = [
                read_event(contracts[entry["address"]], entry)
                for entry in logs
                if entry["address"] in contracts
                and first_block <= entry["blockNumber"] <= last_block
            ]
        return tuple(sorted(found, key=lambda event: (event.block_number, event.index)))

    def task(self, task_id: str) -> TaskState:
        """Return a task.

        Raises
        ------
        TransactionReverted
            There is no such task (``UnknownTask``).
        """
        values = self._call(self._tasks, "getTask", bytes32(task_id))
        names = [field["name"] for field in _output_fields("getTask")]
        stored = dict(zip(names, values, strict=True))
        phase = _PHASES[stored["state"]]
        if phase is None:
            raise WrongChain(f"task {task_id} has no state")
        return TaskState(
            task_id=task_id,
            coordinator=stored["coordinator"],
            terms_digest=hex32(stored["termsDigest"]),
            state=phase,
            rounds=stored["rounds"],
            last_round=stored["lastRound"],
            last_attempt=stored["lastAttempt"],
            head=hex32(stored["head"]),
            roster_digest=hex32(stored["rosterDigest"]),
            members=stored["members"],
            min_contributors=stored["minContributors"],
            quorum=stored["quorum"],
            max_samples=stored["maxSamples"],
            model_digest=hex32(stored["modelDigest"]) if phase == "finalised" else None,
        )

    def members(self, task_id: str) -> tuple[Member, ...]:
        """Return the roster in the order of joining.

        Raises
        ------
        WrongChain
            The events do not add up to the stored roster digest: the endpoint hides some.
        """
        stored = self.task(task_id).roster_digest
        roster = tuple(
            Member(
                node=event["args"]["node"],
                samples=event["args"]["samples"],
                data_commitment=hex32(event["args"]["dataCommitment"]),
                sealing_key=hex32(event["args"]["sealingKey"]),
                index=event["args"]["index"],
            )
            for event in self._events("MemberJoined", task_id)
        )
        in_order = [member.index for member in roster] == list(range(len(roster)))
        if not in_order or roster_digest(roster) != stored:
            raise WrongChain(
                f"the events of task {task_id} do not add up to its roster {stored}",
                hint="Ask another endpoint: this one hides or makes up events, or lags behind.",
            )
        return roster

    def registered_key(self, node: str) -> str | None:
        """Return a node's sealing key, or None when it is not registered."""
        key = hex32(self._call(self._nodes, "sealingKeyOf", to_checksum_address(node)))
        return None if key == ZERO_DIGEST else key

    def registration_nonce(self, node: str) -> int:
        """Return the nonce that the node's next registration has to carry."""
        return int(self._call(self._nodes, "nonceOf", to_checksum_address(node)))

    def nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes on the register, in the order of their first registration."""
        seen = [event["args"]["node"] for event in self._logs(self._nodes, "NodeRegistered", {})]
        keys = {node: self.registered_key(node) for node in dict.fromkeys(seen)}
        return tuple(
            RegisteredNode(node=node, sealing_key=key) for node, key in keys.items() if key
        )

    def data_commitments(self, node: str, dataset: str | None = None) -> tuple[DataCommitment, ...]:
        """Return a node's commitments, oldest first.

        Raises
        ------
        WrongChain
            The versions have gaps, or not as many as are stored: the endpoint hides some.
        """
        wanted: dict[str, Any] = {"node": to_checksum_address(node)}
        if dataset is not None:
            wanted["dataset"] = bytes32(dataset)
        found = tuple(
            DataCommitment(
                node=event["args"]["node"],
                dataset=hex32(event["args"]["dataset"]),
                version=event["args"]["version"],
                commitment=hex32(event["args"]["commitment"]),
                samples=event["args"]["samples"],
                **_place(event),
            )
            for event in self._logs(self._data, "DataPublished", wanted)
        )
        versions: dict[str, list[int]] = {} if dataset is None else {dataset: []}
        for commitment in found:
            versions.setdefault(commitment.dataset, []).append(commitment.version)
        for name, numbers in versions.items():
            stored = self._call(self._data, "versionOf", wanted["node"], bytes32(name))
            if numbers != list(range(1, stored + 1)):
                raise WrongChain(
                    f"dataset {name} of {node} has {stored} versions, the events show {numbers}",
                    hint="Ask another endpoint: this one hides or makes up events, or lags behind.",
                )
        return found

    def round_records(self, task_id: str) -> tuple[RoundRecord, ...]:
        """Return all records in order, superseded ones included.

        Raises
        ------
        WrongChain
            The events do not add up to the stored head: the endpoint hides some.
        """
        stored = self.task(task_id).head
        records = tuple(
            self._record(task_id, event) for event in self._events("RoundRecorded", task_id)
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
        if head != stored or (records and records[-1].head != stored):
            raise WrongChain(
                f"the records of task {task_id} do not add up to its head {stored}",
                hint="Ask another endpoint: this one hides or makes up events, or lags behind.",
            )
        return records

    def round_record(self, task_id: str, round_number: int, attempt: int) -> RoundRecord | None:
        """Return one record, or None."""
        for event in self._events("RoundRecorded", task_id, round=round_number):
            if event["args"]["round"] == round_number and event["args"]["attempt"] == attempt:
                return self._record(task_id, event)
        return None

    def attestations(self, task_id: str) -> tuple[Attestation, ...]:
        """Return what quorums attested of a task's rounds, oldest first."""
        return tuple(
            Attestation(
                task_id=task_id,
                round=event["args"]["round"],
                manifest_digest=hex32(event["args"]["manifestDigest"]),
                model_digest=hex32(event["args"]["modelDigest"]),
                metrics_digest=hex32(event["args"]["metricsDigest"]),
                signers=event["args"]["signers"],
                **_place(event),
            )
            for event in self._events("ModelAttested", task_id)
        )

    def receipt_anchor(self, issuer: str, root: str) -> ReceiptAnchor | None:
        """Return where an issuer anchored a batch, or None."""
        wanted = {"issuer": to_checksum_address(issuer), "root": bytes32(root)}
        for event in self._logs(self._receipts, "ReceiptsAnchored", wanted):
            return ReceiptAnchor(
                issuer=event["args"]["issuer"],
                root=root,
                count=event["args"]["count"],
                **_place(event),
            )
        return None

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return how the task was finalised, or None."""
        for event in self._events("TaskFinalised", task_id):
            values = event["args"]
            return Finalisation(
                task_id=task_id,
                model_digest=hex32(values["modelDigest"]),
                metrics_digest=hex32(values["metricsDigest"]),
                head=hex32(values["head"]),
                signers=values["signers"],
                **_place(event),
            )
        return None

    def _record(self, task_id: str, event: EventData) -> RoundRecord:
        values = event["args"]
        with self._rpc.asking("eth_getTransactionReceipt") as web3:
            gas_used = web3.eth.get_transaction_receipt(event["transactionHash"])["gasUsed"]
        return RoundRecord(
            task_id=task_id,
            round=values["round"],
            attempt=values["attempt"],
            manifest_digest=hex32(values["manifestDigest"]),
            updates_root=hex32(values["updatesRoot"]),
            head=hex32(values["head"]),
            **_place(event),
            gas_used=int(gas_used),
        )

    def _events(self, name: str, task_id: str, **indexed: int) -> Sequence[EventData]:
        return self._logs(self._tasks, name, {"taskId": bytes32(task_id), **indexed})

    def _logs(
        self, contract: Web3Contract, name: str, wanted: dict[str, Any]
    ) -> Sequence[EventData]:
        self._require_checked()
        with self._rpc.asking(name):
            try:
                event = contract.events[name]()
            except ABIEventNotFound as error:
                raise ChainError(f"the contract has no event {name}") from error
            found = list(event.get_logs(from_block=0, argument_filters=wanted))
        # The endpoint was asked for these; whether it kept to it is checked.
        return [
            entry
            for entry in found
            if entry["address"] == contract.address
            and all(entry["args"][field] == value for field, value in wanted.items())
        ]

    def _call(self, contract: Web3Contract, function: str, *arguments: Any) -> Any:
        self._require_checked()
        with self._rpc.asking(function):
            return contract.functions[function](*arguments).call()

    def _require_checked(self) -> None:
        if not self._checked:
            self.check()

    def _contract(self, name: str, address: str) -> Web3Contract:
        abi = load_contract(name).abi
        return self._rpc.web3.eth.contract(address=to_checksum_address(address), abi=abi)


def _place(event: EventData) -> dict[str, Any]:
    return {
        "block_number": event["blockNumber"],
        "block_hash": hex32(event["blockHash"]),
        "transaction_hash": hex32(event["transactionHash"]),
    }


def _output_fields(function: str) -> list[dict[str, Any]]:
    for entry in load_contract("TaskRegistry").abi:
        if entry.get("name") == function:
            return cast("list[dict[str, Any]]", entry["outputs"][0]["components"])
    raise ChainError(f"the contract has no function {function}")
