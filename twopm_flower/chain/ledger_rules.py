"""The rules of a ledger, which are those of the contracts, under the names of their errors.

Pure: from what stands so far, an action and the time follows the one event that it makes, or
its refusal. The service applies them to accept an action, and every reader to check it.
"""

from functools import singledispatch

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from twopm_flower.chain.facts import EventName, Member
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
    StartTask,
)
from twopm_flower.chain.ledger_checks import Checks
from twopm_flower.chain.ledger_state import LedgerState
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import roster_digest, round_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Membership,
    Registration,
)

Effect = tuple[EventName, dict[str, str | int]]
"""Name and values of the event that an action makes."""


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
    return _decide(action, Checks(state, deployment, time, action.function))


@singledispatch
def _decide(action: Action, checks: Checks) -> Effect:
    raise TypeError(f"there is no rule for {type(action).__name__}")


@_decide.register
def _register(action: RegisterNode, checks: Checks) -> Effect:
    if action.sealing_key == ZERO_DIGEST:
        checks.refuse("ZeroSealingKey", node=action.node)
    known = checks.state.nodes.get(action.node)
    nonce = 0 if known is None else known.nonce
    checks.require_deadline(action.deadline)
    statement = Registration(
        node=action.node, sealing_key=action.sealing_key, nonce=nonce, deadline=action.deadline
    )
    domain = checks.deployment.registry_domain
    checks.require_signer(action.node, statement, domain, action.signature)
    return "node_registered", {
        "node": action.node,
        "sealing_key": action.sealing_key,
        "nonce": nonce,
    }


@_decide.register
def _depart(action: DeregisterNode, checks: Checks) -> Effect:
    known = checks.state.nodes.get(action.node)
    if known is None or known.sealing_key is None:
        checks.refuse("NotRegistered", node=action.node)
    checks.require_deadline(action.deadline)
    statement = Departure(node=action.node, nonce=known.nonce, deadline=action.deadline)
    domain = checks.deployment.registry_domain
    checks.require_signer(action.node, statement, domain, action.signature)
    return "node_left", {"node": action.node, "nonce": known.nonce}


@_decide.register
def _publish(action: PublishData, checks: Checks) -> Effect:
    known = checks.state.nodes.get(action.node)
    if known is None or known.sealing_key is None:
        checks.refuse("NotRegistered", node=action.node)
    checks.require_digests(action.dataset, action.commitment)
    if action.samples == 0:
        checks.refuse("ZeroSamples")
    expected = checks.state.versions(action.node, action.dataset) + 1
    if action.version != expected:
        checks.refuse("WrongVersion", version=action.version, expected=expected)
    statement = DataPublication(
        node=action.node,
        dataset=action.dataset,
        version=action.version,
        commitment=action.commitment,
        samples=action.samples,
    )
    domain = checks.deployment.data_domain
    checks.require_signer(action.node, statement, domain, action.signature)
    return "data_published", statement.to_json()


@_decide.register
def _create_task(action: CreateTask, checks: Checks) -> Effect:
    terms: dict[str, str | int] = {
        "terms_digest": action.terms_digest,
        "rounds": action.rounds,
        "min_contributors": action.min_contributors,
        "quorum": action.quorum,
        "max_samples": action.max_samples,
    }
    counts = (action.rounds, action.quorum, action.max_samples)
    if action.terms_digest == ZERO_DIGEST or 0 in counts or action.min_contributors < 2:
        checks.refuse(
            "BadTerms",
            termsDigest=action.terms_digest,
            rounds=action.rounds,
            minContributors=action.min_contributors,
            quorum=action.quorum,
            maxSamples=action.max_samples,
        )
    deployment = checks.deployment
    created = checks.state.tasks_created_by.get(action.author, 0)
    kinds = ["uint256", "address", "address", "uint256"]
    named = [deployment.chain_id, deployment.task_registry, action.author, created]
    task_id = "0x" + keccak(encode(kinds, named)).hex()
    return "task_created", {"task_id": task_id, "coordinator": action.author, **terms}


@_decide.register
def _join(action: JoinTask, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "open")
    if action.node in task.members:
        checks.refuse("AlreadyMember", taskId=action.task_id, node=action.node)
    largest = task.state.max_samples
    if not 0 < action.samples <= largest:
        checks.refuse("SamplesOutOfRange", samples=action.samples, maxSamples=largest)
    checks.require_digests(action.data_commitment)
    node = checks.state.nodes.get(action.node)
    registered = (node and node.sealing_key) or ZERO_DIGEST
    if registered == ZERO_DIGEST or registered != action.sealing_key:
        checks.refuse(
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
    checks.require_signer(member.node, statement, checks.deployment.domain, action.signature)
    digest = roster_digest([member], start=task.state.roster_digest)
    return "member_joined", {"task_id": action.task_id, **vars(member), "roster_digest": digest}


@_decide.register
def _start(action: StartTask, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "open")
    needed = max(task.state.min_contributors, task.state.quorum)
    if task.state.members < needed:
        checks.refuse("TooFewMembers", members=task.state.members, needed=needed)
    return "task_started", {
        "task_id": action.task_id,
        "roster_digest": task.state.roster_digest,
        "members": task.state.members,
    }


@_decide.register
def _cancel(action: CancelTask, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "open", "running")
    length = len(action.reason.encode())
    if length > MAX_REASON_BYTES:
        checks.refuse("ReasonTooLong", length=length)
    return "task_cancelled", {"task_id": action.task_id, "reason": action.reason}


@_decide.register
def _record_round(action: RecordRound, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "running")
    checks.require_digests(action.manifest_digest, action.updates_root)
    stored = task.state
    if action.round > stored.rounds:
        checks.refuse("TooManyRounds", round=action.round, rounds=stored.rounds)
    follows = action.attempt != 0 and action.round == stored.last_round + 1
    supersedes = 0 < action.round == stored.last_round and action.attempt > stored.last_attempt
    if not follows and not supersedes:
        checks.refuse(
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
def _attest(action: AttestModel, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "running")
    checks.require_digests(action.model_digest, action.metrics_digest)
    signers = checks.require_quorum(task, action)
    return "model_attested", {
        "task_id": action.task_id,
        "round": task.state.last_round,
        "manifest_digest": action.manifest_digest,
        "model_digest": action.model_digest,
        "metrics_digest": action.metrics_digest,
        "signers": signers,
    }


@_decide.register
def _finalise(action: FinaliseTask, checks: Checks) -> Effect:
    task = checks.task_of(action.author, action.task_id)
    checks.require_state(task, "running")
    stored = task.state
    if stored.last_round != stored.rounds:
        checks.refuse("RoundsMissing", lastRound=stored.last_round, rounds=stored.rounds)
    checks.require_digests(action.model_digest, action.metrics_digest)
    signers = checks.require_quorum(task, action)
    return "task_finalised", {
        "task_id": action.task_id,
        "model_digest": action.model_digest,
        "metrics_digest": action.metrics_digest,
        "head": stored.head,
        "signers": signers,
    }


@_decide.register
def _anchor(action: AnchorReceipts, checks: Checks) -> Effect:
    checks.require_digests(action.root)
    if action.count == 0:
        checks.refuse("EmptyBatch")
    if (action.author, action.root) in checks.state.anchors:
        checks.refuse("AlreadyAnchored", issuer=action.author, root=action.root)
    return "receipts_anchored", {
        "issuer": action.author,
        "root": action.root,
        "count": action.count,
    }
