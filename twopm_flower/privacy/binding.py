"""What an encrypted update belongs to, as the fixed-width bytes in its frame and digest."""

from dataclasses import dataclass
from functools import cached_property

from twopm_flower.errors import FrameError

ZERO_NODE = "0x" + "00" * 20


@dataclass(frozen=True)
class FrameContext:
    """The one place that an encrypted update may be used in.

    Attributes
    ----------
    task_id : str
        ``0x`` and 64 hexadecimal digits.
    round : int
        Unsigned, 64 bits.
    attempt : int
        Unsigned, 32 bits.
    node : str
        The node's chain address; upper and lower case mean the same. An aggregate belongs to
        no node, and its bytes leave the field out.
    key_id, parameters_id, layout_digest : str
        ``0x`` and 64 hexadecimal digits.
    """

    task_id: str
    round: int
    attempt: int
    node: str
    key_id: str
    parameters_id: str
    layout_digest: str

    def __post_init__(self) -> None:
        for name in ("task_id", "key_id", "parameters_id", "layout_digest"):
            object.__setattr__(self, name, hexadecimal(name, getattr(self, name), 32))
        object.__setattr__(self, "node", hexadecimal("node", self.node, 20))
        for name, bits in (("round", 64), ("attempt", 32)):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 1 << bits:
                raise FrameError(f"{name} {value!r} is not an unsigned integer of {bits} bits.")

    @cached_property
    def update_bytes(self) -> bytes:
        """The 160 bytes that bind a node's update, in the order of the attributes."""
        return self._place + bytes.fromhex(self.node[2:]) + self._material

    @cached_property
    def aggregate_bytes(self) -> bytes:
        """The 140 bytes that bind a round's sum: the same without the node."""
        return self._place + self._material

    @property
    def _place(self) -> bytes:
        return (
            bytes.fromhex(self.task_id[2:])
            + self.round.to_bytes(8, "little")
            + self.attempt.to_bytes(4, "little")
        )

    @property
    def _material(self) -> bytes:
        return bytes.fromhex(self.key_id[2:] + self.parameters_id[2:] + self.layout_digest[2:])


def hexadecimal(name: str, value: str, length: int) -> str:
    """Return `value` in lower case with its ``0x``, if it is `length` bytes in hexadecimal.

    Raises
    ------
    FrameError
        If it is anything else; it is called `name` there.
    """
    digits = value.lower().removeprefix("0x") if isinstance(value, str) else ""
    if len(digits) != 2 * length or set(digits) - set("0123456789abcdef"):
        raise FrameError(f"{name} {value!r} is not 0x and {2 * length} hexadecimal digits.")
    return "0x" + digits
