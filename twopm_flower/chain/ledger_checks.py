"""What the rules of a ledger have in common: who may, in which state, and what was signed."""

from typing import NoReturn

from eth_keys.datatypes import Signature as KeySignature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError as KeyValidationError

from twopm_flower.chain.facts import TaskPhase
from twopm_flower.chain.ledger_actions import SignedModel
from twopm_flower.chain.ledger_state import LedgerState, TaskRecord
from twopm_flower.errors import TransactionReverted
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import round_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.statements import HALF_ORDER, Domain, ModelStatement, Statement

_STATES: dict[TaskPhase, int] = {"open": 1, "running": 2, "finalised": 3, "cancelled": 4}
_ZERO_ADDRESS = "0x" + "00" * 20


def unknown_task(function: str, task_id: str) -> TransactionReverted:
    """Return the error that says that there is no such task."""
    return _refusal(function, "UnknownTask", {"taskId": task_id})


class Checks:
    """Checks one action, and refuses it by raising TransactionReverted.

    Parameters
    ----------
    state : LedgerState
        What stands so far.
    deployment : Deployment
        The ledger, as statements of nodes name it.
    time : int
        When the action is judged, in seconds since the epoch.
    function : str
        The action's function, for messages.
    """

    def __init__(
        self, state: LedgerState, deployment: Deployment, time: int, function: str
    ) -> None:
        self.state = state
        self.deployment = deployment
        self.time = time
        self._function = function

    def refuse(self, error: str, **arguments: object) -> NoReturn:
        """Refuse, with the error that the contracts would give."""
        raise _refusal(self._function, error, arguments)

    def task_of(self, author: str, task_id: str) -> TaskRecord:
        """Return a task, if the account is its coordinator."""
        task = self.state.tasks.get(task_id)
        if task is None:
            raise unknown_task(self._function, task_id)
        coordinator = task.state.coordinator
        if coordinator != author:
            self.refuse("NotCoordinator", taskId=task_id, caller=author, coordinator=coordinator)
        return task

    def require_state(self, task: TaskRecord, *allowed: TaskPhase) -> None:
        """Refuse a task that stands elsewhere."""
        if task.state.state not in allowed:
            self.refuse("WrongState", taskId=task.state.task_id, state=_STATES[task.state.state])

    def require_digests(self, *digests: str) -> None:
        """Refuse a digest of zero."""
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
        """Refuse a statement that somebody else signed."""
        signer = self.signer(statement, domain, signature)
        if signer != node:
            self.refuse("WrongSigner", node=node, signer=signer)

    def require_deadline(self, deadline: int) -> None:
        """Refuse a statement whose time is over."""
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


def _refusal(function: str, error: str, arguments: dict[str, object]) -> TransactionReverted:
    shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return TransactionReverted(
        f"{function} was refused: {error}({shown})", error_name=error, arguments=arguments
    )
