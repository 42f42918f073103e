"""What our Solana program is told, byte by byte: instructions and their accounts.

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
        data = bytes([0]) + _numbers("initialise", "<Q", deployment.chain_id)
        registries = (
            deployment.node_registry,
            deployment.task_registry,
            deployment.data_registry,
        )
        data += b"".join(address_bytes(registry) for registry in registries)
        return self._instruction(data, self._writable(self._at.config), _readonly(SYSTEM))

    def register(self, node: str, sealing_key: str, deadline: int, signature: str) -> Instruction:
        """Relay a registration."""
        data = bytes([1]) + address_bytes(node) + _digest(sealing_key)
        data += _numbers("register", "<Q", deadline) + hexadecimal(signature, SIGNATURE)
        return self._instruction(
            data,
            _readonly(self._at.config),
            self._writable(self._at.node(node)),
            _readonly(SYSTEM),
        )

    def depart(self, node: str, deadline: int, signature: str) -> Instruction:
        """Relay a departure."""
        data = bytes([2]) + address_bytes(node) + _numbers("depart", "<Q", deadline)
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
        data = (
            bytes([3]) + address_bytes(node) + _digest(dataset) + _numbers("publish", "<I", version)
        )
        data += _digest(commitment) + _numbers("publish", "<Q", samples)
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
        data = bytes([4]) + _digest(terms_digest)
        data += _numbers("createTask", "<IHHQ", rounds, min_contributors, quorum, max_samples)
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
        data = bytes([5]) + address_bytes(node) + _numbers("join", "<Q", samples)
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
        return self._instruction(bytes([6]), task, payer_writable=False)

    def record_round(
        self,
        task_id: str,
        round_number: int,
        attempt: int,
        manifest_digest: str,
        updates_root: str,
    ) -> Instruction:
        """Record a round."""
        data = bytes([7]) + _numbers("recordRound", "<II", round_number, attempt)
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
        data = bytes([8]) + _digest(last.manifest_digest) + _digest(last.updates_root)
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
        data = bytes([9]) + _numbers("addSignatures", "<B", len(signatures))
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
        return self._instruction(bytes([10]), *accounts, payer_writable=False)

    def finalise(self, task_id: str, tally: Pubkey) -> Instruction:
        """End the task with the tally's model."""
        task = self._writable(self._at.task(task_id))
        return self._instruction(bytes([11]), task, self._writable(tally))

    def close_tally(self, task_id: str, tally: Pubkey) -> Instruction:
        """Get back what an unused tally holds."""
        task = _readonly(self._at.task(task_id))
        return self._instruction(bytes([12]), task, self._writable(tally))

    def cancel(self, task_id: str, reason: str) -> Instruction:
        """End the task without a model."""
        words = reason.encode()
        data = bytes([13]) + _numbers("cancel", "<H", len(words)) + words
        task = self._writable(self._at.task(task_id))
        return self._instruction(data, task, payer_writable=False)

    def anchor(self, root: str, count: int) -> Instruction:
        """Anchor a batch of receipts."""
        data = bytes([14]) + _digest(root) + _numbers("anchor", "<I", count)
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


def _numbers(what: str, layout: str, *values: int) -> bytes:
    try:
        return struct.pack(layout, *values)
    except struct.error as error:
        raise ChainError(
            f"{what} cannot be called with {values}: {error}",
            hint="One of the values does not fit the instruction's field.",
        ) from error
