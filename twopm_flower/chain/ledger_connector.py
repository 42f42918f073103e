"""Writes to a ledger: each action is signed by one account and becomes one entry, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from twopm_flower.chain.calls import (
    AnchorCall,
    AttestCall,
    Call,
    FinaliseCall,
    FinalRound,
    Joining,
    ModelCall,
    RoundCall,
    SignedTransaction,
)
from twopm_flower.chain.facts import Attestation, Finalisation, Receipt, ReceiptAnchor, RoundRecord
from twopm_flower.chain.ledger_account import LedgerAccount
from twopm_flower.chain.ledger_actions import (
    Action,
    AnchorReceipts,
    AttestModel,
    CancelTask,
    CreateTask,
    DeregisterNode,
    FinaliseTask,
    JoinTask,
    PublishData,
    RecordRound,
    RegisterNode,
    StartTask,
)
from twopm_flower.chain.ledger_records import SignedAction
from twopm_flower.chain.ledger_replay import EXPIRED
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    RecordConflict,
    RecordError,
    TransactionReverted,
)

T = TypeVar("T")


class LedgerConnector(LedgerAccount):
    """Reads a ledger and writes to it from one account.

    See :class:`~twopm_flower.chain.base.ChainConnector`. There are no fees and no nonces:
    signed bytes take effect at most once by themselves.

    Parameters
    ----------
    source : Source
        The ledger's service.
    deployment : Deployment
        The ledger to believe.
    signer : Signer
        Signs for the account.
    """

    def register_node(self, node: str, sealing_key: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Registration``; a registered node gets another key."""
        return self._act(
            RegisterNode,
            {
                "node": node,
                "sealing_key": sealing_key,
                "deadline": deadline,
                "signature": signature,
            },
        )

    def deregister_node(self, node: str, deadline: int, signature: str) -> Receipt:
        """Relay a node's signed ``Departure``; its memberships remain."""
        values = {"node": node, "deadline": deadline, "signature": signature}
        return self._act(DeregisterNode, values)

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
        """Relay a node's signed ``DataPublication``; versions count from 1 without gaps."""
        return self._act(
            PublishData,
            {
                "node": node,
                "dataset": dataset,
                "version": version,
                "commitment": commitment,
                "samples": samples,
                "signature": signature,
            },
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
        """Create a task and return its identifier."""
        receipt = self._act(
            CreateTask,
            {
                "terms_digest": terms_digest,
                "rounds": rounds,
                "min_contributors": min_contributors,
                "quorum": quorum,
                "max_samples": max_samples,
            },
        )
        number = receipt.block_number
        return str(self.events(number, number)[0].values["task_id"]), receipt

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
        return self._act(
            JoinTask,
            {
                "task_id": task_id,
                "node": node,
                "samples": samples,
                "data_commitment": data_commitment,
                "sealing_key": sealing_key,
                "signature": signature,
            },
        )

    def admit(self, task_id: str, joinings: Sequence[Joining]) -> tuple[Receipt, ...]:
        """Relay several nodes' ``Membership``, one entry each."""
        return tuple(self.join_task(task_id, **asdict(joining)) for joining in joinings)

    def start_task(self, task_id: str) -> Receipt:
        """Close the roster and start the rounds."""
        return self._act(StartTask, {"task_id": task_id})

    def cancel_task(self, task_id: str, reason: str) -> Receipt:
        """End a task without a model; `reason` has at most 256 bytes."""
        return self._act(CancelTask, {"task_id": task_id, "reason": reason})

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
        return _done(self.round_record(task_id, round_number, attempt))

    def attest_model(
        self,
        task_id: str,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
        signatures: Mapping[str, str],
    ) -> Attestation:
        """State that a quorum signed the model of the last recorded round; the task goes on.

        Raises
        ------
        RecordConflict
            The round was attested with another model.
        """
        round_number = self.task(task_id).last_round
        self._do(AttestCall(task_id, last, model_digest, metrics_digest, signatures, round_number))
        return _done(self._attestation(task_id, round_number))

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
        return _done(self.finalisation(task_id))

    def anchor_receipts(self, root: str, count: int) -> ReceiptAnchor:
        """Anchor a batch by its Merkle root; one that is anchored already is success.

        Raises
        ------
        RecordConflict
            The same root is anchored with another count.
        """
        self._do(AnchorCall(root, count))
        return _done(self.receipt_anchor(self.account, root))

    def next_nonce(self) -> int | None:
        """Return None: there are no nonces."""
        return None

    def sign_call(
        self,
        call: Call,
        *,
        nonce: int | None = None,
        replacing: SignedTransaction | None = None,
    ) -> SignedTransaction:
        """Sign what would do a call, without sending it; nothing has to be outbid.

        Raises
        ------
        TransactionReverted
            The rules would refuse it.
        """
        signed = self._sign(*_encode(call))
        self._decide(signed.action)
        return SignedTransaction(
            raw=signed.to_bytes(),
            transaction_hash=signed.action.digest,
            expires_at=signed.action.expires_at,
        )

    def sign_filler(
        self, nonce: int, *, replacing: SignedTransaction | None = None
    ) -> SignedTransaction:
        """Refuse: there are no nonces that could be left open."""
        raise ChainError(
            f"a ledger has no nonce {nonce} to fill", hint="next_nonce() is None: ask it first."
        )

    def already_done(self, call: Call) -> str | None:
        """Return the digest of the action that did exactly this, or None.

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
        elif isinstance(call, AttestCall):
            found = self._attestation(call.task_id, call.round)
            what = f"the model of round {call.round} of task {call.task_id}"
            ours = (call.model_digest, call.metrics_digest)
            if found is not None:
                theirs = (found.model_digest, found.metrics_digest)
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
                f"{what} stands on the ledger as {theirs}, ours is {ours}",
                hint="Stop and find out who else holds the coordinator's key.",
            )
        return found.transaction_hash

    def broadcast(self, transaction: SignedTransaction) -> bool:
        """Send a signed action, or send it again.

        Returns
        -------
        bool
            False when its time is over.

        Raises
        ------
        TransactionReverted
            The rules refuse it, so it became no entry.
        """
        try:
            self._send(SignedAction.from_bytes(transaction.raw))
        except RecordError as error:
            raise ChainError(f"these bytes are no action of a ledger: {error}") from error
        except TransactionReverted as error:
            if error.error_name == EXPIRED:
                return False
            raise
        return True

    def _attestation(self, task_id: str, round_number: int) -> Attestation | None:
        for attestation in reversed(self.attestations(task_id)):
            if attestation.round == round_number:
                return attestation
        return None

    def _do(self, call: Call) -> None:
        if self.already_done(call) is not None:
            return
        try:
            self._act(*_encode(call))
        except TransactionReverted:
            # Another process of ours may have been first.
            if self.already_done(call) is None:
                raise


def _encode(call: Call) -> tuple[type[Action], dict[str, Any]]:
    if isinstance(call, RoundCall):
        return RecordRound, {
            "task_id": call.task_id,
            "round": call.round,
            "attempt": call.attempt,
            "manifest_digest": call.manifest_digest,
            "updates_root": call.updates_root,
        }
    if isinstance(call, AnchorCall):
        return AnchorReceipts, {"root": call.root, "count": call.count}
    kind = FinaliseTask if isinstance(call, FinaliseCall) else AttestModel
    return kind, _model(call)


def _model(call: ModelCall) -> dict[str, Any]:
    # The rules want signers in increasing order, so that none counts twice.
    in_order = sorted(call.signatures, key=lambda node: int(node, 16))
    return {
        "task_id": call.task_id,
        "previous_head": call.last.previous_head,
        "attempt": call.last.attempt,
        "manifest_digest": call.last.manifest_digest,
        "updates_root": call.last.updates_root,
        "model_digest": call.model_digest,
        "metrics_digest": call.metrics_digest,
        "signatures": [call.signatures[node] for node in in_order],
    }


def _done(found: T | None) -> T:
    if found is None:
        raise ChainUnavailable(
            "what was just done is not to be seen yet",
            hint="Try again: nothing is done twice.",
        )
    return found
