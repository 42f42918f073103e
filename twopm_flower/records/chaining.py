"""The chained digests that the contracts keep, redone here for whoever compares them."""

from collections.abc import Iterable
from typing import Protocol

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest


class ChainedMember(Protocol):
    """What the contract chains of a member: both the chain's members and a roster's have it."""

    @property
    def node(self) -> str:
        """Its EIP-55 address."""
        ...

    @property
    def samples(self) -> int:
        """How many samples it committed to."""
        ...

    @property
    def data_commitment(self) -> str:
        """Its salted commitment to them."""
        ...

    @property
    def sealing_key(self) -> str:
        """Its X25519 public key."""
        ...


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


def next_head(previous: str, manifest: RoundManifest) -> str:
    """Return the head after a manifest is recorded; see :func:`round_head`."""
    return round_head(
        previous,
        manifest.task_id,
        manifest.round,
        manifest.attempt,
        manifest_digest=manifest.digest,
        updates_root=manifest.updates_root,
    )


def roster_digest(members: Iterable[ChainedMember], *, start: str = ZERO_DIGEST) -> str:
    """Return the chained digest of a roster, in the order of joining.

    Each step is ``keccak256(abi.encode(digest, node, samples, dataCommitment, sealingKey))``,
    from zero.

    Parameters
    ----------
    members : iterable of ChainedMember
        The members, or those that joined after `start` was the digest.
    start : str
        The digest to go on from.

    Returns
    -------
    str
        ``0x`` and 64 hexadecimal digits.
    """
    digest = start
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
