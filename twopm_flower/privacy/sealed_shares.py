"""Sealing shares to their readers and opened sums to the nodes, so that the server relays both.

Both go through the server, which can read neither.

A *share* of a node's key is sealed (HPKE, see `keys.seal`) to a key that its reader published
for one attempt of one round, and deletes afterwards: whoever takes over a node later opens no
share of the past. A box opens in the context that it was sealed for and in no other, so it
cannot be replayed in another attempt, shown to a reader as dealt by somebody else, or used
under another roster or threshold. Sealing does not say who sealed. So the dealer signs the
root of a Merkle tree over the digests of its boxes, and each reader gets a proof for its own.

An *opening*, the share of a sum, is sealed under a key derived from the group key, which all
nodes of the task hold and the server does not. A node that leaks the group key gives away no
more than the sums, which it knows anyway. The opener signs the digest.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from twopm_flower.errors import KeyCeremonyError, RecordError, SharingError
from twopm_flower.privacy.keys import SealingKey, SharedKey, seal
from twopm_flower.privacy.share_codec import SHARE_BYTES, pack_share, unpack_share
from twopm_flower.privacy.sharing import Share
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.merkle import MerkleTree, leaf_hash, root_from_proof

SEALED_SHARE_BYTES = 32 + SHARE_BYTES + 16
"""4400: the encapsulated key, the share and the authentication tag."""

SEALED_OPENING_BYTES = 12 + SHARE_BYTES + 16
"""4380: the nonce, the share of the sum and the authentication tag."""

_NONCE_BYTES = 12
_GROUP_SECRET_BYTES = 32
_DIGEST = re.compile(r"0x[0-9a-f]{64}")


@dataclass(frozen=True)
class ShareContext:
    """Which share a box holds: it opens as no other.

    Attributes
    ----------
    chain_id : int
    contract : str
        Address of the task registry.
    task_id : str
        ``0x`` and 64 hexadecimal digits.
    roster_digest : str
        Digest of the members and their keys, which the points of shares follow from.
    round : int
    attempt : int
    threshold : int
        t: how many shares open a sum.
    dealer : str
        Address of the node whose key was shared out.
    reader : str
        Address of the node that holds the share.
    reader_key : str
        The reader's X25519 key for this attempt, ``0x`` and 64 hexadecimal digits.
    """

    chain_id: int
    contract: str
    task_id: str
    roster_digest: str
    round: int
    attempt: int
    threshold: int
    dealer: str
    reader: str
    reader_key: str

    def to_bytes(self) -> bytes:
        """Return the bytes that a box is bound to."""
        return b"twopm-flower/sealed-share/v1\0" + _canonical(self)


@dataclass(frozen=True)
class OpeningContext:
    """Which sum an opening is a share of: it opens as no other.

    Attributes
    ----------
    chain_id : int
    contract : str
        Address of the task registry.
    task_id : str
        ``0x`` and 64 hexadecimal digits.
    round : int
    attempt : int
    manifest_digest : str
        Of the manifest that lists the survivors.
    node : str
        Address of the node that opens.
    """

    chain_id: int
    contract: str
    task_id: str
    round: int
    attempt: int
    manifest_digest: str
    node: str

    def to_bytes(self) -> bytes:
        """Return the bytes that an opening is bound to."""
        return b"twopm-flower/opening/v1\0" + _canonical(self)


def seal_share(share: Share, reader_key: str, context: ShareContext) -> bytes:
    """Return the 4400 bytes of a share sealed to its reader.

    Parameters
    ----------
    share : ndarray of uint32, shape (2048,)
    reader_key : str
        The key that the reader signed for this attempt; the one that `context` names.
    context : ShareContext

    Raises
    ------
    KeyCeremonyError
        If the key is not usable or not the context's.
    SharingError
        If it is no share.
    """
    if reader_key.lower() != context.reader_key.lower():
        raise KeyCeremonyError(
            f"A share for {context.reader} would be sealed to the key {reader_key}, and its "
            f"context names {context.reader_key}."
        )
    return seal(reader_key, pack_share(share), context.to_bytes())


def open_share(sealed: bytes, reader_secret: SealingKey, context: ShareContext) -> Share:
    """Return the share in a box, as an array that the caller may `erase`.

    Parameters
    ----------
    sealed : bytes
        As `seal_share` returned it.
    reader_secret : SealingKey
        This node's key for the attempt.
    context : ShareContext
        From what this node knows itself, never from the sender of the box.

    Raises
    ------
    KeyCeremonyError
        If it was sealed to another key, in another context, or was altered.
    SharingError
        If what was sealed is no share: the dealer is at fault.
    """
    if len(sealed) != SEALED_SHARE_BYTES:
        raise SharingError(
            f"The sealed share of {context.dealer} is {len(sealed)} bytes long, not "
            f"{SEALED_SHARE_BYTES}."
        )
    if reader_secret.public.lower() != context.reader_key.lower():
        raise KeyCeremonyError(
            f"The share of {context.dealer} is sealed to the key {context.reader_key}; this "
            f"node's key for the attempt is {reader_secret.public}."
        )
    try:
        payload = reader_secret.open_sealed(sealed, context.to_bytes())
    except KeyCeremonyError as error:
        raise KeyCeremonyError(
            f"The share that {context.dealer} dealt in round {context.round}, attempt "
            f"{context.attempt}, does not open with this node's key {reader_secret.public}.",
            hint="It was sealed to another key, in another context, or was altered.",
        ) from error
    return unpack_share(payload.reveal())


def sealed_share_digest(sealed: bytes, context: ShareContext) -> str:
    """Return the digest of a box and its context: ``0x`` and 64 hexadecimal digits.

    `shares_root` over all boxes of a dealer is what the dealer signs.
    """
    return _bound_digest("sealed-share-digest/v1", context.to_bytes(), sealed)


def shares_root(digests: Sequence[str]) -> str:
    """Return the root of the Merkle tree over the digests of one dealer's boxes, in any order.

    A leaf is `records.merkle.leaf_hash` of the digest as ``bytes32``.

    Raises
    ------
    SharingError
        If there is no digest, one occurs twice, or one is no digest.
    """
    return "0x" + _tree(digests).root.hex()


def share_proof(digests: Sequence[str], digest: str) -> tuple[str, ...]:
    """Return the steps from one digest to the `shares_root` of all.

    Raises
    ------
    SharingError
        If `digest` is not among them, or `shares_root` would refuse them.
    """
    tree = _tree(digests)
    if digest not in digests:
        raise SharingError(f"No share with the digest {digest!r} was dealt.")
    return tuple("0x" + step.hex() for step in tree.proof(_leaf(digest)))


def check_share_proof(digest: str, proof: Sequence[str], root: str) -> bool:
    """Return whether `proof` leads from the digest of a box to the root that a dealer signed.

    False as well where anything is not ``0x`` and 64 lower-case hexadecimal digits.
    """
    if not all(map(_DIGEST.fullmatch, (digest, root, *proof))):
        return False
    steps = [bytes.fromhex(step[2:]) for step in proof]
    return root_from_proof(_leaf(digest), steps) == bytes.fromhex(root[2:])


def seal_opening(share_sum: Share, group_key: SharedKey, context: OpeningContext) -> bytes:
    """Return the 4380 bytes of an opened share of a sum, sealed to whoever has the group key.

    ChaCha20Poly1305 (RFC 8439) with a random nonce, which comes first, under a key for this
    context alone: HKDF-SHA256 (RFC 5869) of the group's secret, with the context as ``info``.

    Raises
    ------
    SharingError
        If it is no share.
    KeyCeremonyError
        If the group key's secret is not 32 bytes long.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(group_key, context).encrypt(nonce, pack_share(share_sum), None)


def open_opening(sealed: bytes, group_key: SharedKey, context: OpeningContext) -> Share:
    """Return what `seal_opening` sealed, as an array that the caller may `erase`.

    Raises
    ------
    KeyCeremonyError
        If it was sealed with another group key, in another context, or was altered.
    SharingError
        If the length is another, or what was sealed is no share: the opener is at fault.
    """
    if len(sealed) != SEALED_OPENING_BYTES:
        raise SharingError(
            f"The opening of {context.node} is {len(sealed)} bytes long, not "
            f"{SEALED_OPENING_BYTES}."
        )
    nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        payload = _cipher(group_key, context).decrypt(nonce, box, None)
    except InvalidTag as error:
        raise KeyCeremonyError(
            f"The opening of {context.node} in round {context.round}, attempt "
            f"{context.attempt}, does not open with the group key {group_key.key_id}.",
            hint="It was sealed with another key, for another manifest, or was altered.",
        ) from error
    return unpack_share(payload)


def opening_digest(sealed: bytes, context: OpeningContext) -> str:
    """Return what an opener signs: the digest of a sealed opening and its context."""
    return _bound_digest("opening-digest/v1", context.to_bytes(), sealed)


def _canonical(context: ShareContext | OpeningContext) -> bytes:
    # A chain id may be beyond what a JSON number holds; hexadecimal text has one spelling.
    fields = {
        name: value.lower() if isinstance(value, str) else value
        for name, value in asdict(context).items()
    }
    return canonical_bytes(fields | {"chain_id": str(context.chain_id)})


def _bound_digest(tag: str, context: bytes, sealed: bytes) -> str:
    return tagged_digest(tag, len(context).to_bytes(4, "big"), context, sealed)


def _leaf(digest: str) -> bytes:
    return leaf_hash(("bytes32",), (bytes.fromhex(digest[2:]),))


def _tree(digests: Sequence[str]) -> MerkleTree:
    for digest in digests:
        if not _DIGEST.fullmatch(digest):
            raise SharingError(f"{digest!r} is not the digest of a sealed share.")
    try:
        return MerkleTree.of([_leaf(digest) for digest in digests])
    except RecordError as error:
        raise SharingError(
            f"The sealed shares have no root: {error}",
            hint="A dealer seals one share to each other node that published a key.",
        ) from error


def _cipher(group_key: SharedKey, context: OpeningContext) -> ChaCha20Poly1305:
    secret = group_key.secret.reveal()
    if len(secret) != _GROUP_SECRET_BYTES:
        raise KeyCeremonyError(
            f"The secret of the group key {group_key.key_id} is {len(secret)} bytes long, not "
            f"{_GROUP_SECRET_BYTES}.",
            hint="The backend one-time-key makes group keys.",
        )
    hkdf = HKDF(SHA256(), length=32, salt=None, info=context.to_bytes())
    return ChaCha20Poly1305(hkdf.derive(secret))
