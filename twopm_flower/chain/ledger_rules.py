"""The rules of a ledger, which are those of the contracts, under the names of their errors.

Pure: from what stands so far, an action and the time follows the one event that it makes, or
its refusal. The service applies them to accept an action, and every reader to check it.
"""

from functools import singledispatch
from typing import NoReturn

from eth_abi.abi import encode
from eth_keys.datatypes import Signature as KeySignature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeyValidationError

from twopm_flower.chain.facts import EventName, Member, TaskPhase
from twopm_flower.chain.ledger_actions import (
    MAX_REASON_BYTES,
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
    SignedModel,
    StartTask,
)
from twopm_flower.chain.ledger_state import LedgerState, TaskRecord
from twopm_flower.errors import TransactionReverted
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import roster_digest, round_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.statements import (
    HALF_ORDER,
    DataPublication,
    Departure,
    Domain,
    Membership,
    ModelStatement,
    Registration,
    Statement,
)

Effect = tuple[EventName, dict[str, str | int]]
"""Name and values of the event that an action makes."""

_STATES: dict[TaskPhase, int] = {"open": 1, "running": 2, "finalised": 3, "cancelled": 4}
_ZERO_ADDRESS = "0x" + "00" * 20


def decide(state: LedgerState, deployment: Deployment, action: Action, time: int) -> Effect:
    """Return what an action does.

    Parameters
    ----------
    state : LedgerState
        What stands so far; it stays as it is.
    deployment : Deployment
        The ledger, as statements of nodes name it.
    action : Action
        What is asked; that its author signed it is known.
    time : int
        When, in seconds since the epoch.

    Raises
    ------
    TransactionReverted
        The rules refuse it.
    """
    rules = _Rules(state, deployment, time, action.function)
    return _decide(action, rules)


def unknown_task(function: str, task_id: str) -> TransactionReverted:
    """Return the error that says that there is no such task."""
    return _refusal(function, "UnknownTask", {"taskId": task_id})


class _Rules:
    """What the decisions have in common."""

    def __init__(
        self, state: LedgerState, deployment: Deployment, time: int, function: str
    ) -> None:
        self.state = state
        self.deployment = deployment
        self.time = time
        self._function = function

    def refuse(self, error: str, **arguments: object) -> NoReturn:
        raise _refusal(self._function, error, arguments)

    def task_of(self, author: str, task_id: str) -> TaskRecord:
        task = self.state.tasks.get(task_id)
        if task is None:
            raise unknown_task(self._function, task_id)
        coordinator = task.state.coordinator
        if coordinator != author:
            self.refuse("NotCoordinator", taskId=task_id, caller=author, coordinator=coordinator)
        return task

    def require_state(self, task: TaskRecord, *allowed: TaskPhase) -> None:
        if task.state.state not in allowed:
            self.refuse("WrongState", taskId=task.state.task_id, state=_STATES[task.state.state])

    def require_digests(self, *digests: str) -> None:
        if ZERO_DIGEST in digests:
            self.refuse("ZeroDigest")

    def signer(self, statement: Statement, domain: Domain, signature: str) -> str:
        """Return who signed, or refuse a signature in the words of OpenZeppelin's ECDSA."""
        raw = bytes.fromhex(signature[2:])
        r, s, v = int.from_bytes(raw[:32]), int.from_bytes(raw[32:64]), raw[64]
        if s > HALF_ORDER:
            self.refuse("ECDSAInvalidSignatureS", s="0x" + raw[32:64].hex())
        if v not in (27, 28):
            self.refuse("ECDSAInvalidSignature")
        try:
            key = KeySignature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(
                statement.signing_hash(domain)
            )
        except (BadSignature, KeyValidationError, ValueError):
            self.refuse("ECDSAInvalidSignature")
        return str(key.to_checksum_address())

    def require_signer(
        self, node: str, statement: Statement, domain: Domain, signature: str
    ) -> None:
        signer = self.signer(statement, domain, signature)
        if signer != node:
            self.refuse("WrongSigner", node=node, signer=signer)

    def require_deadline(self, deadline: int) -> None:
        if self.time > deadline:
            self.refuse("DeadlinePassed", deadline=deadline, timestamp=self.time)

    def require_quorum(self, task: TaskRecord, model: SignedModel) -> int:
        """Return how many members signed the model of the last recorded round."""
        stored = task.state
        given = round_head(
            model.previous_head,
            model.task_id,
            stored.last_round,
            model.attempt,
            manifest_digest=model.manifest_digest,
            updates_root=model.updates_root,
        )
        if given != stored.head:
            self.refuse("HeadMismatch", given=given, head=stored.head)
        if len(model.signatures) < stored.quorum:
            self.refuse("QuorumMissed", signers=len(model.signatures), quorum=stored.quorum)
        statement = ModelStatement(
            task_id=model.task_id,
            round=stored.last_round,
            manifest_digest=model.manifest_digest,
            model_digest=model.model_digest,
            metrics_digest=model.metrics_digest,
        )
        previous = _ZERO_ADDRESS
        for signature in model.signatures:
            signer = self.signer(statement, self.deployment.domain, signature)
            if int(signer, 16) <= int(previous, 16):
                self.refuse("SignersNotIncreasing", previous=previous, signer=signer)
            if signer not in task.members:
                self.refuse("NotMember", taskId=model.task_id, signer=signer)
            previous = signer
        return len(model.signatures)


@singledispatch
def _decide(action: Action, rules: _Rules) -> Effect:
    raise TypeError(f"there is no rule for {type(action).__name__}")


@_decide.register
def _register(action: RegisterNode, rules: _Rules) -> Effect:
    if action.sealing_key == ZERO_DIGEST:
        rules.refuse("ZeroSealingKey", node=action.node)
    known = rules.state.nodes.get(action.node)
    nonce = 0 if known is None else known.nonce
    rules.require_deadline(action.deadline)
    statement = Registration(
        node=action.node, sealing_key=action.sealing_key, nonce=nonce, deadline=action.deadline
    )
    domain = rules.deployment.registry_domain
    rules.require_signer(action.node, statement, domain, action.signature)
    return "node_registered", {
        "node": action.node,
        "sealing_key": action.sealing_key,
        "nonce": nonce,
    }


@_decide.register
def _depart(action: DeregisterNode, rules: _Rules) -> Effect:
    known = rules.state.nodes.get(action.node)
    if known is None or known.sealing_key is None:
        rules.refuse("NotRegistered", node=action.node)
    rules.require_deadline(action.deadline)
    statement = Departure(node=action.node, nonce=known.nonce, deadline=action.deadline)
    domain = rules.deployment.registry_domain
    rules.require_signer(action.node, statement, domain, action.signature)
    return "node_left", {"node": action.node, "nonce": known.nonce}


@_decide.register
def _publish(action: PublishData, rules: _Rules) -> Effect:
    known = rules.state.nodes.get(action.node)
    if known is None or known.sealing_key is None:
        rules.refuse("NotRegistered", node=action.node)
    rules.require_digests(action.dataset, action.commitment)
    if action.samples == 0:
        rules.refuse("ZeroSamples")
    expected = rules.state.versions(action.node, action.dataset) + 1
    if action.version != expected:
        rules.refuse("WrongVersion", version=action.version, expected=expected)
    statement = DataPublication(
        node=action.node,
        dataset=action.dataset,
        version=action.version,
        commitment=action.commitment,
        samples=action.samples,
    )
    domain = rules.deployment.data_domain
    rules.require_signer(action.node, statement, domain, action.signature)
    return "data_published", statement.to_json()


@_decide.register
def _create_task(action: CreateTask, rules: _Rules) -> Effect:
    terms: dict[str, str | int] = {
        "terms_digest": action.terms_digest,
        "rounds": action.rounds,
        "min_contributors": action.min_contributors,
        "quorum": action.quorum,
        "max_samples": action.max_samples,
    }
    counts = (action.rounds, action.quorum, action.max_samples)
    if action.terms_digest == ZERO_DIGEST or 0 in counts or action.min_contributors < 2:
        rules.refuse(
            "BadTerms",
            termsDigest=action.terms_digest,
            rounds=action.rounds,
            minContributors=action.min_contributors,
            quorum=action.quorum,
            maxSamples=action.max_samples,
        )
    deployment = rules.deployment
    created = rules.state.tasks_created_by.get(action.author, 0)
    kinds = ["uint256", "address", "address", "uint256"]
    named = [deployment.chain_id, deployment.task_registry, action.author, created]
    task_id = "0x" + keccak(encode(kinds, named)).hex()
    return "task_created", {"task_id": task_id, "coordinator": action.author, **terms}


@_decide.register
def _join(action: JoinTask, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "open")
    if action.node in task.members:
        rules.refuse("AlreadyMember", taskId=action.task_id, node=action.node)
    largest = task.state.max_samples
    if not 0 < action.samples <= largest:
        rules.refuse("SamplesOutOfRange", samples=action.samples, maxSamples=largest)
    rules.require_digests(action.data_commitment)
    node = rules.state.nodes.get(action.node)
    registered = (node and node.sealing_key) or ZERO_DIGEST
    if registered == ZERO_DIGEST or registered != action.sealing_key:
        rules.refuse(
            "SealingKeyMismatch",
            node=action.node,
            sealingKey=action.sealing_key,
            registered=registered,
        )
    member = Member(
        node=action.node,
        samples=action.samples,
        data_commitment=action.data_commitment,
        sealing_key=action.sealing_key,
        index=len(task.members),
    )
    statement = Membership(
        task_id=action.task_id,
        terms_digest=task.state.terms_digest,
        node=member.node,
        samples=member.samples,
        data_commitment=member.data_commitment,
        sealing_key=member.sealing_key,
    )
    rules.require_signer(member.node, statement, rules.deployment.domain, action.signature)
    digest = roster_digest([member], start=task.state.roster_digest)
    return "member_joined", {"task_id": action.task_id, **vars(member), "roster_digest": digest}


@_decide.register
def _start(action: StartTask, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "open")
    needed = max(task.state.min_contributors, task.state.quorum)
    if task.state.members < needed:
        rules.refuse("TooFewMembers", members=task.state.members, needed=needed)
    return "task_started", {
        "task_id": action.task_id,
        "roster_digest": task.state.roster_digest,
        "members": task.state.members,
    }


@_decide.register
def _cancel(action: CancelTask, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "open", "running")
    length = len(action.reason.encode())
    if length > MAX_REASON_BYTES:
        rules.refuse("ReasonTooLong", length=length)
    return "task_cancelled", {"task_id": action.task_id, "reason": action.reason}


@_decide.register
def _record_round(action: RecordRound, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "running")
    rules.require_digests(action.manifest_digest, action.updates_root)
    stored = task.state
    if action.round > stored.rounds:
        rules.refuse("TooManyRounds", round=action.round, rounds=stored.rounds)
    follows = action.attempt != 0 and action.round == stored.last_round + 1
    supersedes = 0 < action.round == stored.last_round and action.attempt > stored.last_attempt
    if not follows and not supersedes:
        rules.refuse(
            "OutOfOrder",
            round=action.round,
            attempt=action.attempt,
            lastRound=stored.last_round,
            lastAttempt=stored.last_attempt,
        )
    head = round_head(
        stored.head,
        action.task_id,
        action.round,
        action.attempt,
        manifest_digest=action.manifest_digest,
        updates_root=action.updates_root,
    )
    return "round_recorded", {
        "task_id": action.task_id,
        "round": action.round,
        "attempt": action.attempt,
        "manifest_digest": action.manifest_digest,
        "updates_root": action.updates_root,
        "head": head,
    }


@_decide.register
def _attest(action: AttestModel, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "running")
    rules.require_digests(action.model_digest, action.metrics_digest)
    signers = rules.require_quorum(task, action)
    return "model_attested", {
        "task_id": action.task_id,
        "round": task.state.last_round,
        "manifest_digest": action.manifest_digest,
        "model_digest": action.model_digest,
        "metrics_digest": action.metrics_digest,
        "signers": signers,
    }


@_decide.register
def _finalise(action: FinaliseTask, rules: _Rules) -> Effect:
    task = rules.task_of(action.author, action.task_id)
    rules.require_state(task, "running")
    stored = task.state
    if stored.last_round != stored.rounds:
        rules.refuse("RoundsMissing", lastRound=stored.last_round, rounds=stored.rounds)
    rules.require_digests(action.model_digest, action.metrics_digest)
    signers = rules.require_quorum(task, action)
    return "task_finalised", {
        "task_id": action.task_id,
        "model_digest": action.model_digest,
        "metrics_digest": action.metrics_digest,
        "head": stored.head,
        "signers": signers,
    }


@_decide.register
def _anchor(action: AnchorReceipts, rules: _Rules) -> Effect:
    rules.require_digests(action.root)
    if action.count == 0:
        rules.refuse("EmptyBatch")
    if (action.author, action.root) in rules.state.anchors:
        rules.refuse("AlreadyAnchored", issuer=action.author, root=action.root)
    return "receipts_anchored", {
        "issuer": action.author,
        "root": action.root,
        "count": action.count,
    }


def _refusal(function: str, error: str, arguments: dict[str, object]) -> TransactionReverted:
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return TransactionReverted(
        f"{function} was refused: {error}({shown})", error_name=error, arguments=arguments
    )
