"""Handing the shared key to the nodes, each copy sealed to its reader."""

from collections.abc import Sequence
from dataclasses import dataclass

from twopm_flower.errors import KeyCeremonyError
from twopm_flower.privacy.keys import SealingKey, SharedKey, seal
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest


@dataclass(frozen=True)
class DealContext:
    """Which ceremony a box belongs to: it opens in no other.

    Attributes
    ----------
    chain_id : int
    contract : str
        Address of the task registry.
    task_id : str
        ``0x`` and 64 hexadecimal digits.
    roster_digest : str
        Digest of the members and their keys, frozen before the deal.
    dealer : str
        Address of the node that deals.
    """

    chain_id: int
    contract: str
    task_id: str
    roster_digest: str
    dealer: str

    def bytes_for(self, reader: str) -> bytes:
        """Return the bytes that a box for the node `reader` is bound to."""
        return b"twopm-flower/key-box/v1\0" + canonical_bytes(
            {
                "chain_id": str(self.chain_id),
                "contract": self.contract.lower(),
                "task_id": self.task_id.lower(),
                "roster_digest": self.roster_digest.lower(),
                "dealer": self.dealer.lower(),
                "reader": reader.lower(),
            }
        )


@dataclass(frozen=True)
class Reader:
    """A node that is to receive the key.

    Attributes
    ----------
    node : str
        Its chain address.
    public : str
        Its registered X25519 key, ``0x`` and 64 hexadecimal digits.
    """

    node: str
    public: str


@dataclass(frozen=True)
class KeyBox:
    """The key sealed to one reader.

    Attributes
    ----------
    node : str
        The reader's chain address.
    box : str
        ``0x`` and the sealed bytes in hexadecimal.
    """

    node: str
    box: str

    @property
    def digest(self) -> str:
        """What the dealer signs, for sealing does not say who sealed."""
        node = bytes.fromhex(self.node.lower().removeprefix("0x"))
        return tagged_digest("key-box-digest/v1", node, _box_bytes(self))


def deal(key: SharedKey, readers: Sequence[Reader], context: DealContext) -> tuple[KeyBox, ...]:
    """Return one box per reader, in their order.

    Raises
    ------
    KeyCeremonyError
        If a reader or a public key occurs twice, or a public key is not usable.
    """
    for what, values in (
        ("node", [reader.node.lower() for reader in readers]),
        ("public key", [reader.public.lower() for reader in readers]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise KeyCeremonyError(
                f"The {what} {twice[0]} is listed twice among the readers.",
                hint="Correct the roster: every node registers a key of its own.",
            )
    payload = key.to_bytes()
    return tuple(
        KeyBox(
            reader.node,
            "0x" + seal(reader.public, payload, context.bytes_for(reader.node)).hex(),
        )
        for reader in readers
    )


def accept(
    box: KeyBox, *, own_key: SealingKey, own_node: str, context: DealContext, key_id: str
) -> SharedKey:
    """Return the key that was dealt to this node.

    Parameters
    ----------
    box : KeyBox
    own_key : SealingKey
        The private half of this node's registered key.
    own_node : str
        This node's chain address.
    context : DealContext
        From the node's own configuration and the chain, never from the sender of the box.
    key_id : str
        The id that the dealer signed: all nodes must hold the same key.

    Raises
    ------
    KeyCeremonyError
        If the box is for another node or ceremony, or holds another key.
    """
    if box.node.lower() != own_node.lower():
        raise KeyCeremonyError(f"The box is for node {box.node}; this is {own_node}.")
    opened = own_key.open_sealed(_box_bytes(box), context.bytes_for(own_node))
    key = SharedKey.from_bytes(opened.reveal())
    if key.key_id != key_id:
        raise KeyCeremonyError(
            f"The box holds the key {key.key_id}; the dealer {context.dealer} signed {key_id}.",
            hint="The dealer gave different keys to different nodes: stop, and choose another.",
        )
    return key


def _box_bytes(box: KeyBox) -> bytes:
    try:
        return bytes.fromhex(box.box.removeprefix("0x"))
    except ValueError as error:
        raise KeyCeremonyError(f"The box for {box.node} is not hexadecimal.") from error
