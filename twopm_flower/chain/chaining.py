"""The chained digests that the contracts keep, redone here: pure functions of what was recorded."""

from collections.abc import Iterable

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from twopm_flower.chain.base import Member
from twopm_flower.records.digest import ZERO_DIGEST


def round_head(
    previous_head: str,
    task_id: str,
    round_number: int,
    attempt: int,
    *,
    manifest_digest: str,
    updates_root: str,
) -> str:
    """Return the head after a record.

    ``keccak256(abi.encode(previousHead, taskId, round, attempt, manifestDigest, updatesRoot))``,
    where the first previous head is zero.

    Returns
    -------
    str
        ``0x`` and 64 hexadecimal digits.
    """
    return _keccak(
        ["bytes32", "bytes32", "uint32", "uint32", "bytes32", "bytes32"],
        [
            _word(previous_head),
            _word(task_id),
            round_number,
            attempt,
            _word(manifest_digest),
            _word(updates_root),
        ],
    )


def roster_digest(members: Iterable[Member]) -> str:
    """Return the chained digest of a roster, in the order of joining.

    Each step is ``keccak256(abi.encode(digest, node, samples, dataCommitment, sealingKey))``,
    from zero.

    Returns
    -------
    str
        ``0x`` and 64 hexadecimal digits.
    """
    digest = ZERO_DIGEST
    for member in members:
        digest = _keccak(
            ["bytes32", "address", "uint64", "bytes32", "bytes32"],
            [
                _word(digest),
                member.node,
                member.samples,
                _word(member.data_commitment),
                _word(member.sealing_key),
            ],
        )
    return digest


def _keccak(kinds: list[str], values: list[object]) -> str:
    return "0x" + keccak(encode(kinds, values)).hex()


def _word(digest: str) -> bytes:
    return bytes.fromhex(digest[2:])
