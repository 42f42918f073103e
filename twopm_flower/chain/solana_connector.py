"""The Solana connector: our program on a cluster, from one account."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from solders.instruction import Instruction

from twopm_flower.chain.calls import (
    AnchorCall,
    AttestCall,
    Call,
    FinaliseCall,
    FinalRound,
    Joining,
    RoundCall,
    SignedTransaction,
)
from twopm_flower.chain.facts import (
    Attestation,
    ChainStatus,
    Finalisation,
    Inclusion,
    Receipt,
    ReceiptAnchor,
    RoundRecord,
)
from twopm_flower.chain.solana_account import RECEIPT_TIMEOUT_S, SolanaAccount
from twopm_flower.chain.solana_identity import task_id_of
from twopm_flower.chain.solana_reader import SolanaReader
from twopm_flower.chain.solana_rpc import REQUEST_TIMEOUT_S, Endpoint, out_of_order
from twopm_flower.chain.solana_state import read_coordinator
from twopm_flower.chain.solana_statements import SolanaStatements
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    RecordConflict,
    TransactionReverted,
)
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.ed25519 import SolanaSigner

TASK_ATTEMPTS = 5
MAX_REASON_BYTES = 256

T = TypeVar("T")


class SolanaConnector(SolanaReader):
    """Reads our program and writes to it from one account.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        As for :class:`SolanaReader`.
    deployment : Deployment
        The cluster and program to believe.
    signer : SolanaSigner
        Signs for the account that pays.
    request_timeout_s, receipt_timeout_s : float
        How long one request, and getting into a block, may take, in seconds.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        deployment: Deployment,
        signer: SolanaSigner,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        receipt_timeout_s: float = RECEIPT_TIMEOUT_S,
    ) -> None:
        super().__init__(endpoints, deployment, request_timeout_s=request_timeout_s)
        self._sender = SolanaAccount(
            self._rpc,
            self._accounts,
            self._history,
            signer,
            receipt_timeout_s=receipt_timeout_s,
        )
        self._write = Instructions(self._at, self._sender.key)
        self._statements = SolanaStatements(
            deployment, self._at, self._accounts, self._sender, self._write
        )

    @property
    def account(self) -> str:
        """The account that pays, and that coordinates the tasks it creates."""
        return self._sender.address

    def status(self) -> ChainStatus:
        """Return how the chain and the account are doing."""
        return replace(super().status(), account=self.account, balance=self._sender.balance())

    def register_node(self, node: str, sealing_key: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Registration``."""
        instruction = self._write.register(node, sealing_key, deadline, signature)
        return self._transact("register", instruction)

    def deregister_node(self, node: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Departure``."""
        return self._transact("depart", self._write.depart(node, deadline, signature))

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
        instruction = self._write.publish(
            node, dataset, version, commitment=commitment, samples=samples, signature=signature
        )
        return self._transact("publish", instruction)

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
        for _ in range(TASK_ATTEMPTS):
            counted = self._accounts.one(self._at.coordinator(self._sender.key), read_coordinator)
            task_id = task_id_of(
                self._deployment.chain_id,
                self._at.program,
                self._sender.key,
                0 if counted is None else counted[0][1],
            )
            try:
                instruction = self._write.create_task(
                    task_id,
                    terms_digest,
                    rounds=rounds,
                    min_contributors=min_contributors,
                    quorum=quorum,
                    max_samples=max_samples,
                )
                return task_id, self._transact("createTask", instruction)
            except TransactionReverted as error:
                # Another process of this account took the number in between.
                if error.error_name != "WrongAddress":
                    raise
        raise ChainUnavailable("others of this account kept creating tasks", hint="Try again.")

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
        instruction = self._write.join(
            task_id,
            node,
            samples=samples,
            data_commitment=data_commitment,
            sealing_key=sealing_key,
            signature=signature,
        )
        return self._transact("join", instruction)

    def admit(self, task_id: str, joinings: Sequence[Joining]) -> tuple[Receipt, ...]:
        """Relay several nodes' ``Membership``, as many at a time as fit one transaction."""
        self._require_checked()
        receipts, together = [], list[Instruction]()
        for joining in joinings:
            instruction = self._write.join(task_id, **asdict(joining))
            if together and not self._sender.fits([*together, instruction]):
                receipts.append(self._sender.transact("join", together))
                together = []
            together.append(instruction)
        if together:
            receipts.append(self._sender.transact("join", together))
        return tuple(receipts)

    def start_task(self, task_id: str) -> Receipt:
        """Close the roster and start the rounds."""
        return self._transact("start", self._write.start(task_id))

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model; `reason` has at most 256 bytes."""
        self._require_checked()
        if len(reason.encode()) > MAX_REASON_BYTES:
            # Whatever else is wrong comes first, as in a contract.
            self._sender.units_of("cancel", [self._write.cancel(task_id, "")])
        return self._transact("cancel", self._write.cancel(task_id, reason))

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
        self._do(RoundCall(task_id, round_number, attempt, manifest_digest, updates_root))
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
        number = self.task(task_id).last_round
        self._do(AttestCall(task_id, last, model_digest, metrics_digest, signatures, number))
        return _visible(self._attestation(task_id, number), f"the model of round {number}")

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

    def receipt_anchor(self, issuer: str, root: str) -> ReceiptAnchor | None:
        """Return where an issuer anchored a batch, or None."""
        if issuer != self.account:
            return super().receipt_anchor(issuer, root)
        # An address does not tell the key that an anchor's place is derived from; ours is known.
        return self._anchored(self._at.anchor(self._sender.key, root), issuer, root)

    def next_nonce(self) -> None:
        """Return None: transactions have no nonces here; they expire instead."""
        return

    def sign_call(
        self,
        call: Call,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign what would do a call, without sending it.

        Signatures of members that do not fit one transaction are brought to the chain at once,
        in a tally, which changes nothing by itself and is found there when this is called again.

        Raises
        ------
        TransactionReverted
            The program would refuse it.
        """
        if nonce is not None:
            raise ChainError(f"a transaction cannot carry the nonce {nonce}: there are none here")
        self._require_checked()
        what, instructions = self._encode(call)
        try:
            return self._sender.sign(what, instructions, replacing=replacing)
        except TransactionReverted as error:
            raise out_of_order(error, call, self.task) from error

    def sign_filler(
        self, nonce: int, *, replacing: SignedTransaction | None = None
    ) -> SignedTransaction:
        """Refuse: without nonces there is no gap to fill."""
        raise ChainError(
            f"there is no nonce {nonce} to fill", hint="next_nonce() is None: ask it first."
        )

    def already_done(self, call: Call) -> str | None:
        """Return the hash of the transaction that did exactly this, or None.

        Raises
        ------
        RecordConflict
            Something else stands in its place.
        """
        found: RoundRecord | Attestation | Finalisation | ReceiptAnchor | None
        ours: tuple[object, ...]
        theirs: tuple[object, ...] = ()
        if isinstance(call, RoundCall):
            found = self.round_record(call.task_id, call.round, call.attempt)
            what = f"round {call.round}, attempt {call.attempt} of task {call.task_id}"
            ours = (call.manifest_digest, call.updates_root)
            if found is not None:
                theirs = (found.manifest_digest, found.updates_root)
        elif isinstance(call, AnchorCall):
            found = self.receipt_anchor(self.account, call.root)
            what, ours = f"the batch of receipts {call.root}", (call.count,)
            if found is not None:
                theirs = (found.count,)
        else:
            if isinstance(call, AttestCall):
                found = self._attestation(call.task_id, call.round)
                what = f"the model of round {call.round} of task {call.task_id}"
            else:
                found = self.finalisation(call.task_id)
                what = f"the end of task {call.task_id}"
            ours = (call.model_digest, call.metrics_digest)
            if found is not None:
                theirs = (found.model_digest, found.metrics_digest)
        if found is None:
            return None
        if ours != theirs:
            raise RecordConflict(
                f"{what} stands on the chain as {theirs}, ours is {ours}",
                hint="Stop and find out who else holds the coordinator's key.",
            )
        return found.transaction_hash

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send a signed transaction, or send it again; False when it can never land."""
        self._require_checked()
        return self._sender.broadcast(transaction)

    def inclusion(self, transaction_hash: str) -> Inclusion | None:
        """Return where a transaction stands, or None while it is in no block."""
        self._require_checked()
        return self._sender.inclusion(transaction_hash)

    def wait(self, transaction_hash: str, *, timeout_s: float | None = None) -> Receipt:
        """Wait until a transaction is in a block."""
        self._require_checked()
        return self._sender.wait(transaction_hash, timeout_s=timeout_s)

    def _attestation(self, task_id: str, round_number: int) -> Attestation | None:
        found = (each for each in self.attestations(task_id) if each.round == round_number)
        return next(found, None)

    def _do(self, call: Call) -> None:
        if self.already_done(call) is not None:
            return
        what, instructions = self._encode(call)
        try:
            self._sender.transact(what, instructions)
        except TransactionReverted as error:
            # Another process may have done the same meanwhile.
            if self.already_done(call) is None:
                raise out_of_order(error, call, self.task) from error

    def _encode(self, call: Call) -> tuple[str, list[Instruction]]:
        if isinstance(call, RoundCall):
            instruction = self._write.record_round(
                call.task_id, call.round, call.attempt, call.manifest_digest, call.updates_root
            )
            return "recordRound", [instruction]
        if isinstance(call, AnchorCall):
            return "anchor", [self._write.anchor(call.root, call.count)]
        return self._statements.instructions(call, self.task(call.task_id))

    def _transact(self, what: str, instruction: Instruction) -> Receipt:
        self._require_checked()
        return self._sender.transact(what, [instruction])


def _visible(found: T | None, what: str) -> T:
    if found is None:
        raise ChainUnavailable(
            f"{what} is in a block but not yet visible",
            hint="Try again: nothing is done twice.",
        )
    return found
