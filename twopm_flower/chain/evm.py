"""The EVM connector: our contracts on any chain that speaks Ethereum's JSON-RPC."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from eth_typing import BlockNumber
from eth_utils.address import to_checksum_address
from web3.contract import Contract as Web3Contract
from web3.exceptions import ABIEventNotFound
from web3.providers.base import BaseProvider
from web3.types import EventData

from twopm_flower.chain.base import (
    Deployment,
    Finalisation,
    FinaliseCall,
    FinalRound,
    Member,
    Receipt,
    RoundCall,
    RoundRecord,
    SignedTransaction,
    TaskPhase,
    TaskState,
)
from twopm_flower.chain.chaining import roster_digest, round_head
from twopm_flower.chain.contracts import load_contract
from twopm_flower.chain.evm_account import RECEIPT_TIMEOUT_S, EvmAccount, to_receipt
from twopm_flower.chain.evm_rpc import REQUEST_TIMEOUT_S, EvmRpc, bytes32, hex32
from twopm_flower.errors import ChainError, ChainUnavailable, RecordConflict, WrongChain
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.signer.base import Signer

_PHASES: tuple[TaskPhase | None, ...] = (None, "open", "running", "finalised", "cancelled")


class EvmReader:
    """Reads our contracts, after making sure that they are ours.

    Parameters
    ----------
    endpoint : str or BaseProvider
        ``http://`` or ``https://`` address of a node, or a web3 provider such as
        :func:`~twopm_flower.chain.devnet.open_read_only` returns.
    deployment : Deployment
        The chain and contracts to believe.
    request_timeout_s : float
        How long one request may take, in seconds.
    """

    def __init__(
        self,
        endpoint: str | BaseProvider,
        deployment: Deployment,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._rpc = EvmRpc(endpoint, timeout_s=request_timeout_s)
        self._deployment = deployment
        self._checked = False
        self._nodes = self._contract("NodeRegistry", deployment.node_registry)
        self._tasks = self._contract("TaskRegistry", deployment.task_registry)

    def deployment(self) -> Deployment:
        """Return the pinned deployment."""
        return self._deployment

    def check(self) -> None:
        """Check chain id, genesis and both contracts' code; done by itself before first use.

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
                "NodeRegistry": web3.eth.get_code(to_checksum_address(pinned.node_registry)),
                "TaskRegistry": web3.eth.get_code(to_checksum_address(pinned.task_registry)),
            }
        hint = f"Check the address of the chain ({self._rpc.name}) and the deployment file."
        if chain_id != pinned.chain_id:
            raise WrongChain(f"chain id is {chain_id}, not {pinned.chain_id}", hint=hint)
        if hex32(genesis) != pinned.genesis_hash:
            raise WrongChain(
                f"first block is {hex32(genesis)}, not {pinned.genesis_hash}", hint=hint
            )
        for name, code in codes.items():
            if not load_contract(name).is_deployed_as(bytes(code)):
                raise WrongChain(f"the code of {name} is not this version's", hint=hint)
        with self._rpc.asking("nodeRegistry"):
            linked = self._tasks.functions.nodeRegistry().call()
        if linked != pinned.node_registry:
            raise WrongChain(f"the tasks use the node registry {linked}", hint=hint)
        self._checked = True

    def head_block(self) -> int:
        """Return the number of the latest block."""
        self._require_checked()
        with self._rpc.asking("eth_blockNumber") as web3:
            return int(web3.eth.block_number)

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
                block_number=event["blockNumber"],
                block_hash=hex32(event["blockHash"]),
                transaction_hash=hex32(event["transactionHash"]),
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
            block_number=event["blockNumber"],
            block_hash=hex32(event["blockHash"]),
            transaction_hash=hex32(event["transactionHash"]),
            gas_used=int(gas_used),
        )

    def _events(self, name: str, task_id: str, **indexed: int) -> Sequence[EventData]:
        self._require_checked()
        wanted = {"taskId": bytes32(task_id), **indexed}
        with self._rpc.asking(name):
            try:
                event = self._tasks.events[name]()
            except ABIEventNotFound as error:
                raise ChainError(f"the contract has no event {name}") from error
            found = list(event.get_logs(from_block=0, argument_filters=wanted))
        # The endpoint was asked for these; whether it kept to it is checked.
        return [
            entry
            for entry in found
            if entry["address"] == self._deployment.task_registry
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


class EvmConnector(EvmReader):
    """Reads our contracts and writes to them from one account.

    Parameters
    ----------
    endpoint : str or BaseProvider
        As for :class:`EvmReader`.
    deployment : Deployment
        The chain and contracts to believe.
    signer : Signer
        Signs for the account that pays.
    request_timeout_s, receipt_timeout_s : float
        How long one request, and one receipt, may take, in seconds.
    """

    def __init__(
        self,
        endpoint: str | BaseProvider,
        deployment: Deployment,
        signer: Signer,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
    ) -> None:
        super().__init__(endpoint, deployment, request_timeout_s=request_timeout_s)
        self._sender = EvmAccount(
            self._rpc, signer, deployment.chain_id, receipt_timeout_s=receipt_timeout_s
        )

    @property
    def account(self) -> str:
        """The account that pays, and that coordinates the tasks it creates."""
        return self._sender.address

    def register_node(self, node: str, sealing_key: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Registration``."""
        arguments = (to_checksum_address(node), bytes32(sealing_key), deadline, _raw(signature))
        return self._transact(self._nodes, "register", *arguments)

    def create_task(
        self,
        terms_digest: str,
        *,
        rounds: int,
        min_contributors: int,
        quorum: int,
        max_samples: int,
    ) -> tuple[str, Receipt]:
        """Create a task and return its identifier with the receipt."""
        self._require_checked()
        data = self._tasks.encode_abi(
            "createTask",
            args=[bytes32(terms_digest), rounds, min_contributors, quorum, max_samples],
        )
        receipt = self._sender.transact("createTask", data, to=self._tasks.address)
        with self._rpc.asking("TaskCreated"):
            created = self._tasks.events.TaskCreated().process_receipt(receipt)
        if len(created) != 1 or created[0]["args"]["coordinator"] != self.account:
            raise WrongChain("the receipt of createTask does not show the task that was created")
        return hex32(created[0]["args"]["taskId"]), to_receipt(receipt)

    def join_task(
        self,
        task_id: str,
        node: str,
        *,
        samples: int,
        data_commitment: str,
        sealing_key: str,
        signature: str,
    ) -> Receipt:
        """Relay a node's signed ``Membership``."""
        return self._transact(
            self._tasks,
            "join",
            bytes32(task_id),
            to_checksum_address(node),
            samples,
            bytes32(data_commitment),
            bytes32(sealing_key),
            _raw(signature),
        )

    def start_task(self, task_id: str) -> Receipt:
        """Close the roster and start the rounds."""
        return self._transact(self._tasks, "start", bytes32(task_id))

    def record_round(
        self,
        task_id: str,
        round_number: int,
        attempt: int,
        manifest_digest: str,
        updates_root: str,
    ) -> RoundRecord:
        """Record a round; one that is recorded already with the same digests is success.

        Raises
        ------
        RecordConflict
            This round and attempt are recorded with other digests.
        """
        call = RoundCall(task_id, round_number, attempt, manifest_digest, updates_root)
        self._do(call)
        record = self.round_record(task_id, round_number, attempt)
        if record is None:
            raise ChainUnavailable(
                f"round {round_number} of task {task_id} is mined but not yet visible",
                hint="Try again: nothing is recorded twice.",
            )
        return record

    def finalise_task(
        self,
        task_id: str,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
        signatures: Mapping[str, str],
    ) -> Finalisation:
        """End a task with its model; a task ended with the same model is success.

        Raises
        ------
        RecordConflict
            The task was finalised with another model.
        """
        self._do(FinaliseCall(task_id, last, model_digest, metrics_digest, signatures))
        ended = self.finalisation(task_id)
        if ended is None:
            raise ChainUnavailable(
                f"the end of task {task_id} is mined but not yet visible",
                hint="Try again: nothing is finalised twice.",
            )
        return ended

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model; `reason` has at most 256 bytes."""
        return self._transact(self._tasks, "cancel", bytes32(task_id), reason)

    def sign_call(self, call: RoundCall | FinaliseCall) -> SignedTransaction:
        """Sign what would record a round or finalise a task, without sending it."""
        self._require_checked()
        function, arguments = _encode(call)
        data = self._tasks.encode_abi(function, args=arguments)
        return self._sender.sign(function, data, self._tasks.address)

    def already_done(self, call: RoundCall | FinaliseCall) -> str | None:
        """Return the hash of the transaction that did exactly this, or None.

        Raises
        ------
        RecordConflict
            Something else stands in its place.
        """
        if isinstance(call, RoundCall):
            record = self.round_record(call.task_id, call.round, call.attempt)
            if record is None:
                return None
            ours = (call.manifest_digest, call.updates_root)
            theirs = (record.manifest_digest, record.updates_root)
            what = f"round {call.round}, attempt {call.attempt} of task {call.task_id}"
            done = record.transaction_hash
        else:
            ended = self.finalisation(call.task_id)
            if ended is None:
                return None
            ours = (call.model_digest, call.metrics_digest)
            theirs = (ended.model_digest, ended.metrics_digest)
            what, done = f"the end of task {call.task_id}", ended.transaction_hash
        if ours != theirs:
            raise RecordConflict(
                f"{what} stands on the chain as {theirs}, ours is {ours}",
                hint="Stop and find out who else holds the coordinator's key.",
            )
        return done

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send a signed transaction, or send it again; False when it can never be mined."""
        self._require_checked()
        return self._sender.broadcast(transaction)

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is mined."""
        self._require_checked()
        return to_receipt(self._sender.wait(transaction_hash, timeout_s=timeout_s))

    def _do(self, call: RoundCall | FinaliseCall) -> None:
        if self.already_done(call) is None:
            function, arguments = _encode(call)
            self._transact(self._tasks, function, *arguments)

    def _transact(self, contract: Web3Contract, function: str, *arguments: Any) -> Receipt:
        self._require_checked()
        data = contract.encode_abi(function, args=list(arguments))
        return to_receipt(self._sender.transact(function, data, to=contract.address))


def deploy(
    endpoint: str | BaseProvider,
    signer: Signer,
    *,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
) -> Deployment:
    """Deploy both contracts and return where they stand.

    Parameters
    ----------
    endpoint : str or BaseProvider
        As for :class:`EvmReader`.
    signer : Signer
        Pays.
    request_timeout_s, receipt_timeout_s : float
        How long one request, and one receipt, may take, in seconds.

    Returns
    -------
    Deployment
        To be stored, and handed to everybody who reads.
    """
    rpc = EvmRpc(endpoint, timeout_s=request_timeout_s)
    with rpc.asking("the chain's identity") as web3:
        chain_id = int(web3.eth.chain_id)
        genesis = hex32(web3.eth.get_block(BlockNumber(0))["hash"])
    account = EvmAccount(rpc, signer, chain_id, receipt_timeout_s=receipt_timeout_s)

    def place(name: str, *arguments: str) -> str:
        contract = load_contract(name)
        factory = rpc.web3.eth.contract(abi=contract.abi, bytecode=contract.bytecode)
        data = factory.constructor(*arguments).data_in_transaction
        receipt = account.transact(f"deployment of {name}", str(data))
        address = receipt["contractAddress"]
        if address is None:
            raise WrongChain(f"the receipt of {name}'s deployment names no contract")
        return str(address)

    node_registry = place("NodeRegistry")
    return Deployment(
        chain_id=chain_id,
        genesis_hash=genesis,
        node_registry=node_registry,
        task_registry=place("TaskRegistry", node_registry),
    )


def _encode(call: RoundCall | FinaliseCall) -> tuple[str, list[Any]]:
    if isinstance(call, RoundCall):
        return "recordRound", [
            bytes32(call.task_id),
            call.round,
            call.attempt,
            bytes32(call.manifest_digest),
            bytes32(call.updates_root),
        ]
    last = (
        bytes32(call.last.previous_head),
        call.last.attempt,
        bytes32(call.last.manifest_digest),
        bytes32(call.last.updates_root),
    )
    # The contract wants signers in increasing order, so that it can see that none counts twice.
    in_order = sorted(call.signatures, key=lambda node: int(node, 16))
    return "finalise", [
        bytes32(call.task_id),
        last,
        bytes32(call.model_digest),
        bytes32(call.metrics_digest),
        [_raw(call.signatures[node]) for node in in_order],
    ]


def _output_fields(function: str) -> list[dict[str, Any]]:
    for entry in load_contract("TaskRegistry").abi:
        if entry.get("name") == function:
            return cast("list[dict[str, Any]]", entry["outputs"][0]["components"])
    raise ChainError(f"the contract has no function {function}")


def _raw(signature: str) -> bytes:
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 65:
        raise ChainError(f"{signature[:20]!r} is not a signature of 65 bytes in hexadecimal")
    return raw
