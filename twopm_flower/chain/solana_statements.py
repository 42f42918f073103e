"""What a quorum signed, brought to our Solana program in one transaction or in several.

A transaction holds 1,232 bytes. Signatures that do not fit are collected in a tally, an account
that counts each member once and by itself changes nothing.
"""

from collections.abc import Iterator, Sequence

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from twopm_flower.chain.calls import AttestCall, ModelCall
from twopm_flower.chain.facts import TaskState
from twopm_flower.chain.solana_account import SolanaAccount
from twopm_flower.chain.solana_accounts import SolanaAccounts
from twopm_flower.chain.solana_identity import Accounts
from twopm_flower.chain.solana_state import read_member, read_tally
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import SignatureError, TransactionReverted
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.chaining import round_head
from twopm_flower.records.statements import ModelStatement, recover

SIGNATURES_AT_ONCE = 8


class SolanaStatements:
    """Writes attestations and ends of tasks.

    Parameters
    ----------
    deployment : Deployment
        Whose domain members sign in.
    at : Accounts
        The program's addresses.
    accounts : SolanaAccounts
        Reads accounts.
    sender : SolanaAccount
        Sends what has to be there first.
    write : Instructions
        Writes instructions.
    """

    def __init__(
        self,
        deployment: Deployment,
        at: Accounts,
        accounts: SolanaAccounts,
        sender: SolanaAccount,
        write: Instructions,
    ) -> None:
        self._domain = deployment.domain
        self._at = at
        self._accounts = accounts
        self._sender = sender
        self._write = write

    def instructions(self, call: ModelCall, task: TaskState) -> tuple[str, list[Instruction]]:
        """Return what brings a statement to the chain: its name, and what is left to be sent.

        Parameters
        ----------
        call : ModelCall
            The statement and its signatures.
        task : TaskState
            Its task, as it stands now.

        Raises
        ------
        TransactionReverted
            The program refuses a signature, or the record is not the last one.
        """
        tally, digest = self._tally(call, task)
        if isinstance(call, AttestCall):
            what = "attest"
            end = [
                self._write.attest(call.task_id, tally),
                self._write.close_tally(call.task_id, tally),
            ]
        else:
            what, end = "finalise", [self._write.finalise(call.task_id, tally)]
        begin = self._write.open_tally(
            call.task_id, tally, call.last, call.model_digest, call.metrics_digest
        )
        # The program wants signers in increasing order, so that it can see that none counts twice.
        in_order = [
            (_signer_of(digest, call.signatures[node], node), call.signatures[node])
            for node in sorted(call.signatures, key=lambda node: int(node, 16))
        ]
        whole = [begin, *self._signatures(call.task_id, tally, in_order), *end]
        if self._sender.fits(whole):
            return what, whole
        counted = self._counted(call.task_id, tally, [node for node, _ in in_order])
        if counted is None:
            self._sender.transact("openTally", [begin])
        missing = [entry for entry in in_order if entry[0] not in (counted or ())]
        for instruction in self._signatures(call.task_id, tally, missing):
            self._sender.transact("addSignatures", [instruction])
        return what, end

    def _signatures(
        self, task_id: str, tally: Pubkey, in_order: Sequence[tuple[str, str]]
    ) -> Iterator[Instruction]:
        for start in range(0, len(in_order), SIGNATURES_AT_ONCE):
            some = in_order[start : start + SIGNATURES_AT_ONCE]
            yield self._write.add_signatures(task_id, tally, some)

    def _tally(self, call: ModelCall, task: TaskState) -> tuple[Pubkey, bytes]:
        head = round_head(
            call.last.previous_head,
            call.task_id,
            task.last_round,
            call.last.attempt,
            manifest_digest=call.last.manifest_digest,
            updates_root=call.last.updates_root,
        )
        mine = task.coordinator == self._sender.address and task.state == "running"
        complete = isinstance(call, AttestCall) or task.last_round == task.rounds
        # Whatever else is wrong comes first, and the program says it.
        if mine and complete and head != task.head:
            raise TransactionReverted(
                f"the record given hashes to {head}, the head of task {call.task_id} is"
                f" {task.head}",
                error_name="HeadMismatch",
                arguments={"given": head, "head": task.head},
            )
        statement = ModelStatement(
            task_id=call.task_id,
            round=max(1, task.last_round),
            manifest_digest=call.last.manifest_digest,
            model_digest=call.model_digest,
            metrics_digest=call.metrics_digest,
        )
        digest = statement.signing_hash(self._domain)
        return self._at.tally(digest), digest

    def _counted(self, task_id: str, tally: Pubkey, nodes: Sequence[str]) -> set[str] | None:
        found = self._accounts.one(tally, read_tally)
        if found is None:
            return None
        members = self._accounts.several(
            [self._at.member(task_id, node) for node in nodes], read_member
        )
        return {
            node
            for node, member in zip(nodes, members, strict=True)
            if member is not None and member[2] in found[0].counted
        }


def _signer_of(digest: bytes, signature: str, claimed: str) -> str:
    # As a contract does: whoever signed has to be a member, under whatever name it was handed in.
    try:
        return recover(digest, signature)
    except SignatureError:
        return claimed
