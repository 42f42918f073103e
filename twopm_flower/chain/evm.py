"""The EVM connector: our contracts on any chain that speaks Ethereum's JSON-RPC."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from eth_typing import BlockNumber
from eth_utils.address import to_checksum_address
from web3.contract import Contract as Web3Contract
from web3.exceptions import Web3Exception

from twopm_flower.chain.base import (
    AnchorCall,
    Attestation,
    AttestCall,
    Call,
    ChainStatus,
    Finalisation,
    FinaliseCall,
    FinalRound,
    Inclusion,
    Joining,
    Receipt,
    ReceiptAnchor,
    RoundCall,
    RoundRecord,
    SignedTransaction,
)
from twopm_flower.chain.calls import hexadecimal
from twopm_flower.chain.contracts import load_contract
from twopm_flower.chain.evm_account import RECEIPT_TIMEOUT_S, EvmAccount, to_receipt
from twopm_flower.chain.evm_reader import EvmReader
from twopm_flower.chain.evm_rpc import REQUEST_TIMEOUT_S, Endpoint, EvmRpc, bytes32, hex32
from twopm_flower.errors import ChainError, ChainUnavailable, RecordConflict, WrongChain
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.base import Signer

T = TypeVar("T")

# About 40,000 gas each: far below what any chain puts into one block.
JOININGS_AT_ONCE = 100

__all__ = ["EvmConnector", "EvmReader", "deploy"]


class EvmConnector(EvmReader):
    """Reads our contracts and writes to them from one account.

    Parameters
    ----------
    endpoint : Endpoint
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
        endpoint: Endpoint,
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
        arguments = (
            to_checksum_address(node),
            bytes32(sealing_key),
            deadline,
            hexadecimal(signature, 65),
        )
        return self._transact(self._nodes, "register", *arguments)

    def deregister_node(self, node: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Departure``."""
        arguments = (to_checksum_address(node), deadline, hexadecimal(signature, 65))
        return self._transact(self._nodes, "depart", *arguments)

    def publish_data(
        self,
        node: str,
        dataset: str,
        version: int,
        *,
        commitment: str,
        samples: int,
        signature: str,
    ) -> Receipt:
        """Relay a node's signed ``DataPublication``."""
        return self._transact(
            self._data,
            "publish",
            to_checksum_address(node),
            bytes32(dataset),
            version,
            bytes32(commitment),
            samples,
            hexadecimal(signature, 65),
        )

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
        arguments = [bytes32(terms_digest), rounds, min_contributors, quorum, max_samples]
        data = _call_data(self._tasks, "createTask", arguments)
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
        joining = Joining(node, samples, data_commitment, sealing_key, signature)
        return self.admit(task_id, [joining])[0]

    def admit(self, task_id: str, joinings: Sequence[Joining]) -> tuple[Receipt, ...]:
        """Relay several nodes' ``Membership``, in as few transactions as fit into a block."""
        receipts = []
        for start in range(0, len(joinings), JOININGS_AT_ONCE):
            encoded = [
                (
                    to_checksum_address(joining.node),
                    joining.samples,
                    bytes32(joining.data_commitment),
                    bytes32(joining.sealing_key),
                    hexadecimal(joining.signature, 65),
                )
                for joining in joinings[start : start + JOININGS_AT_ONCE]
            ]
            receipts.append(self._transact(self._tasks, "join", bytes32(task_id), encoded))
        return tuple(receipts)

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
        return _visible(record, f"round {round_number} of task {task_id}")

    def attest_model(
        self,
        task_id: str,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
        signatures: Mapping[str, str],
    ) -> Attestation:
        """State that a quorum signed the model of the last recorded round.

        Raises
        ------
        RecordConflict
            The round was attested with another model.
        """
        round_ = self.task(task_id).last_round
        self._do(AttestCall(task_id, last, model_digest, metrics_digest, signatures, round_))
        found = [entry for entry in self.attestations(task_id) if entry.round == round_]
        return _visible(found[0] if found else None, f"the model of round {round_}")

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
        return _visible(self.finalisation(task_id), f"the end of task {task_id}")

    def anchor_receipts(self, root: str, count: int) -> ReceiptAnchor:
        """Anchor a batch of receipts; one that is anchored already is success.

        Raises
        ------
        RecordConflict
            The same root is anchored with another count.
        """
        self._do(AnchorCall(root, count))
        return _visible(self.receipt_anchor(self.account, root), f"the anchor of {root}")

    def status(self) -> ChainStatus:
        """Return how the chain and the account are doing."""
        with self._rpc.asking("eth_getBalance") as web3:
            balance = web3.eth.get_balance(to_checksum_address(self.account))
        return replace(super().status(), account=self.account, balance=int(balance))

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model; `reason` has at most 256 bytes."""
        return self._transact(self._tasks, "cancel", bytes32(task_id), reason)

    def next_nonce(self) -> int:
        """Return the nonce that the account's next transaction takes."""
        self._require_checked()
        return self._sender.next_nonce()

    def sign_call(
        self,
        call: Call,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign what would do a call, without sending it."""
        self._require_checked()
        contract, function, arguments = self._encode(call)
        data = _call_data(contract, function, arguments)
        return self._sender.sign(function, data, contract.address, nonce=nonce, replacing=replacing)

    def sign_filler(
        self, nonce: int, *, replacing: SignedTransaction | None = None
    ) -> SignedTransaction:
        """Sign a payment of nothing to the account itself, which uses up a nonce."""
        self._require_checked()
        return self._sender.sign("a filler", "0x", self.account, nonce=nonce, replacing=replacing)

    def already_done(self, call: Call) -> str | None:
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
            ours: tuple[str, ...] = (call.manifest_digest, call.updates_root)
            theirs: tuple[str, ...] = (record.manifest_digest, record.updates_root)
            what = f"round {call.round}, attempt {call.attempt} of task {call.task_id}"
            done = record.transaction_hash
        elif isinstance(call, AnchorCall):
            anchor = self.receipt_anchor(self.account, call.root)
            if anchor is None:
                return None
            ours, theirs = (str(call.count),), (str(anchor.count),)
            what, done = f"the anchor of {call.root}", anchor.transaction_hash
        elif isinstance(call, AttestCall):
            attested = [a for a in self.attestations(call.task_id) if a.round == call.round]
            if not attested:
                return None
            ours = (call.model_digest, call.metrics_digest)
            theirs = (attested[0].model_digest, attested[0].metrics_digest)
            what = f"the model of round {call.round} of task {call.task_id}"
            done = attested[0].transaction_hash
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

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return where a transaction stands, or None while it is in no block."""
        self._require_checked()
        return self._sender.inclusion(transaction_hash)

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is mined."""
        self._require_checked()
        return to_receipt(self._sender.wait(transaction_hash, timeout_s=timeout_s))

    def _do(self, call: Call) -> None:
        if self.already_done(call) is None:
            contract, function, arguments = self._encode(call)
            self._transact(contract, function, *arguments)

    def _encode(self, call: Call) -> tuple[Web3Contract, str, list[Any]]:
        if isinstance(call, AnchorCall):
            return self._receipts, "anchor", [bytes32(call.root), call.count]
        function, arguments = _encode(call)
        return self._tasks, function, arguments

    def _transact(self, contract: Web3Contract, function: str, *arguments: Any) -> Receipt:
        self._require_checked()
        data = _call_data(contract, function, list(arguments))
        return to_receipt(self._sender.transact(function, data, to=contract.address))


def deploy(
    endpoint: Endpoint,
    signer: Signer,
    *,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
) -> Deployment:
    """Deploy the contracts and return where they stand.

    Parameters
    ----------
    endpoint : Endpoint
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
        data_registry=place("DataRegistry", node_registry),
        receipt_registry=place("ReceiptRegistry"),
    )


def _call_data(contract: Web3Contract, function: str, arguments: list[Any]) -> str:
    try:
        return str(contract.encode_abi(function, args=arguments))
    except Web3Exception as error:
        raise ChainError(
            f"{function} cannot be called with {arguments}",
            hint="One of the values does not fit the contract's type.",
        ) from error


def _visible(found: T | None, what: str) -> T:
    if found is None:
        raise ChainUnavailable(
            f"{what} is mined but not yet visible",
            hint="Try again: nothing is done twice.",
        )
    return found


def _encode(call: RoundCall | FinaliseCall | AttestCall) -> tuple[str, list[Any]]:
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
    return "attest" if isinstance(call, AttestCall) else "finalise", [
        bytes32(call.task_id),
        last,
        bytes32(call.model_digest),
        bytes32(call.metrics_digest),
        [hexadecimal(call.signatures[node], 65) for node in in_order],
    ]
