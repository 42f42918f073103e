"""What our Solana program is told, byte by byte: instructions, their accounts, and its errors.

``docs/solana.md`` is the definition; integers are little-endian.
"""

import struct
from collections.abc import Sequence

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from twopm_flower.chain.calls import FinalRound, hexadecimal
from twopm_flower.chain.solana_identity import Accounts, address_bytes
from twopm_flower.errors import ChainError
from twopm_flower.records.bundle import Deployment

SYSTEM = Pubkey.default()
SIGNATURE = 65

ERRORS = {
    6000: "UnknownInstruction",
    6001: "WrongDataLength",
    6002: "WrongAccountCount",
    6003: "MissingSigner",
    6004: "NotWritable",
    6005: "WrongOwner",
    6006: "WrongAccountKind",
    6007: "WrongAddress",
    6008: "WrongSystemProgram",
    6009: "AlreadyInitialised",
    6010: "NotInitialised",
    6011: "BadConfig",
    6012: "UnsupportedRent",
    6013: "Overflow",
    6020: "DeadlinePassed",
    6021: "WrongSigner",
    6022: "BadSignature",
    6023: "ZeroSealingKey",
    6024: "NotRegistered",
    6030: "ZeroDigest",
    6031: "ZeroSamples",
    6032: "WrongVersion",
    6040: "UnknownTask",
    6041: "NotCoordinator",
    6042: "WrongState",
    6043: "BadTerms",
    6044: "AlreadyMember",
    6045: "SealingKeyMismatch",
    6046: "SamplesOutOfRange",
    6047: "TooFewMembers",
    6048: "TooManyRounds",
    6049: "OutOfOrder",
    6050: "AlreadyRecorded",
    6051: "RoundsMissing",
    6052: "HeadMismatch",
    6053: "QuorumMissed",
    6054: "NotMember",
    6055: "SignersNotIncreasing",
    6056: "ReasonTooLong",
    6057: "TooManyMembers",
    6058: "UnknownTally",
    6059: "StaleTally",
    6060: "AlreadyAnchored",
}
"""The program's errors by their codes."""


class Instructions:
    """Writes instructions for one program, paid and signed for by one account.

    Values that do not fit their field raise ChainError.

    Parameters
    ----------
    accounts : Accounts
        The program's addresses.
    payer : bytes
        The account's 32-byte key.
    """

    def __init__(self, accounts: Accounts, payer: bytes) -> None:
        self._at = accounts
        self._key = payer
        self._payer = Pubkey(payer)

    def initialise(self, deployment: Deployment) -> Instruction:
        """Write the config: chain id and registry addresses."""
        data = _pack(0, "<Q", deployment.chain_id)
        registries = (
            deployment.node_registry,
            deployment.task_registry,
            deployment.data_registry,
        )
        data += b"".join(address_bytes(registry) for registry in registries)
        return self._instruction(data, self._writable(self._at.config), _readonly(SYSTEM))

    def register(self, node: str, sealing_key: str, deadline: int, signature: str) -> Instruction:
        """Relay a registration."""
        data = _pack(1) + address_bytes(node) + _digest(sealing_key)
        data += _pack(None, "<Q", deadline) + hexadecimal(signature, SIGNATURE)
        return self._instruction(
            data,
            _readonly(self._at.config),
            self._writable(self._at.node(node)),
            _readonly(SYSTEM),
        )

    def depart(self, node: str, deadline: int, signature: str) -> Instruction:
        """Relay a departure."""
        data = _pack(2) + address_bytes(node) + _pack(None, "<Q", deadline)
        data += hexadecimal(signature, SIGNATURE)
        return self._instruction(
            data,
            _readonly(self._at.config),
            self._writable(self._at.node(node)),
            payer_writable=False,
        )

    def publish(
        self,
        node: str,
        dataset: str,
        version: int,
        *,
        commitment: str,
        samples: int,
        signature: str,
    ) -> Instruction:
        """Relay a data publication."""
        data = _pack(3) + address_bytes(node) + _digest(dataset) + _pack(None, "<I", version)
        data += _digest(commitment) + _pack(None, "<Q", samples)
        data += hexadecimal(signature, SIGNATURE)
        return self._instruction(
            data,
            _readonly(self._at.config),
            _readonly(self._at.node(node)),
            self._writable(self._at.dataset(node, dataset)),
            _readonly(SYSTEM),
        )

    def create_task(
        self,
        task_id: str,
        terms_digest: str,
        *,
        rounds: int,
        min_contributors: int,
        quorum: int,
        max_samples: int,
    ) -> Instruction:
        """Create the task whose identifier the coordinator's counter gives."""
        data = _pack(4) + _digest(terms_digest)
        data += _pack(None, "<IHHQ", rounds, min_contributors, quorum, max_samples)
        return self._instruction(
            data,
            _readonly(self._at.config),
            self._writable(self._at.coordinator(self._key)),
            self._writable(self._at.task(task_id)),
            _readonly(SYSTEM),
        )

    def join(
        self,
        task_id: str,
        node: str,
        *,
        samples: int,
        data_commitment: str,
        sealing_key: str,
        signature: str,
    ) -> Instruction:
        """Relay a membership."""
        data = _pack(5) + address_bytes(node) + _pack(None, "<Q", samples)
        data += _digest(data_commitment) + _digest(sealing_key)
        data += hexadecimal(signature, SIGNATURE)
        return self._instruction(
            data,
            _readonly(self._at.config),
            self._writable(self._at.task(task_id)),
            _readonly(self._at.node(node)),
            self._writable(self._at.member(task_id, node)),
            _readonly(SYSTEM),
        )

    def start(self, task_id: str) -> Instruction:
        """Close the roster."""
        task = self._writable(self._at.task(task_id))
        return self._instruction(_pack(6), task, payer_writable=False)

    def record_round(
        self,
        task_id: str,
        round_number: int,
        attempt: int,
        manifest_digest: str,
        updates_root: str,
    ) -> Instruction:
        """Record a round."""
        data = _pack(7, "<II", round_number, attempt)
        data += _digest(manifest_digest) + _digest(updates_root)
        task = self._writable(self._at.task(task_id))
        return self._instruction(data, task, payer_writable=False)

    def open_tally(
        self,
        task_id: str,
        tally: Pubkey,
        last: FinalRound,
        model_digest: str,
        metrics_digest: str,
    ) -> Instruction:
        """Open what collects signatures over the model of the last record."""
        data = _pack(8) + _digest(last.manifest_digest) + _digest(last.updates_root)
        data += _digest(model_digest) + _digest(metrics_digest)
        return self._instruction(
            data,
            _readonly(self._at.config),
            _readonly(self._at.task(task_id)),
            self._writable(tally),
            _readonly(SYSTEM),
        )

    def add_signatures(
        self, task_id: str, tally: Pubkey, signatures: Sequence[tuple[str, str]]
    ) -> Instruction:
        """Count members' signatures, given as pairs of node and signature."""
        data = _pack(9, "<B", len(signatures))
        data += b"".join(hexadecimal(signature, SIGNATURE) for _, signature in signatures)
        return self._instruction(
            data,
            _readonly(self._at.task(task_id)),
            self._writable(tally),
            *(_readonly(self._at.member(task_id, node)) for node, _ in signatures),
            payer_writable=False,
        )

    def attest(self, task_id: str, tally: Pubkey) -> Instruction:
        """Attest the tally's model."""
        accounts = (_readonly(self._at.task(task_id)), _readonly(tally))
        return self._instruction(_pack(10), *accounts, payer_writable=False)

    def finalise(self, task_id: str, tally: Pubkey) -> Instruction:
        """End the task with the tally's model."""
        task = self._writable(self._at.task(task_id))
        return self._instruction(_pack(11), task, self._writable(tally))

    def close_tally(self, task_id: str, tally: Pubkey) -> Instruction:
        """Get back what an unused tally holds."""
        task = _readonly(self._at.task(task_id))
        return self._instruction(_pack(12), task, self._writable(tally))

    def cancel(self, task_id: str, reason: str) -> Instruction:
        """End the task without a model."""
        words = reason.encode()
        data = _pack(13, "<H", len(words)) + words
        task = self._writable(self._at.task(task_id))
        return self._instruction(data, task, payer_writable=False)

    def anchor(self, root: str, count: int) -> Instruction:
        """Anchor a batch of receipts."""
        data = _pack(14) + _digest(root) + _pack(None, "<I", count)
        anchor = self._writable(self._at.anchor(self._key, root))
        return self._instruction(data, anchor, _readonly(SYSTEM))

    def _instruction(
        self, data: bytes, *accounts: AccountMeta, payer_writable: bool = True
    ) -> Instruction:
        payer = AccountMeta(self._payer, is_signer=True, is_writable=payer_writable)
        return Instruction(self._at.program, data, [payer, *accounts])

    def _writable(self, key: Pubkey) -> AccountMeta:
        return AccountMeta(key, is_signer=False, is_writable=True)


def _readonly(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=False)


def _digest(digest: str) -> bytes:
    return hexadecimal(digest, 32)


def _pack(tag: int | None, layout: str = "<", *values: int) -> bytes:
    try:
        fields = struct.pack(layout, *values)
    except struct.error as error:
        raise ChainError(f"{values} does not fit an instruction: {error}") from error
    return fields if tag is None else bytes([tag]) + fields
