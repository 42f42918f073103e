"""The frame of one node's update with all residues spelt out, as an auditor is given it.

On the wire an update carries the seeds of its uniform half, which only the encryption
library can grow. This frame carries the residues themselves, so that numpy is enough to
redo the sum. It is an aggregate's frame with another magic and with the node in its place::

    "2PMX" | version u16 | backend u16 | binding of the update, 160 bytes
    | rows u32 | coefficients u32 | body length u64 | c0 | c1      (7 bytes a residue)
"""

from twopm_flower.errors import FrameError
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.frame import (
    AGGREGATE_MAGIC,
    FrameContext,
    encode_aggregate,
    parse_aggregate,
)
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.parameters import AdditiveParameters

EXPANDED_MAGIC = b"2PMX"
_NODE_START = 4 + 2 + 2 + 32 + 8 + 4
_NODE_END = _NODE_START + 20


def encode_expanded(context: FrameContext, ciphertext: Ciphertext, backend: str = "bfv") -> bytes:
    """Return the frame of one node's expanded update."""
    frame = encode_aggregate(context, ciphertext, backend)
    node = bytes.fromhex(context.node[2:])
    return EXPANDED_MAGIC + frame[len(AGGREGATE_MAGIC) : _NODE_START] + node + frame[_NODE_START:]


def parse_expanded(
    data: bytes, expected: FrameContext, parameters: AdditiveParameters, layout: Layout
) -> Ciphertext:
    """Return the ciphertext in the frame `data` of the update that is `expected`.

    Raises
    ------
    FrameError
        If anything is malformed, or belongs anywhere else.
    """
    if data[:4] != EXPANDED_MAGIC:
        raise FrameError(f"The frame starts with {data[:4]!r} instead of {EXPANDED_MAGIC!r}.")
    node = "0x" + data[_NODE_START:_NODE_END].hex()
    if node != expected.node:
        raise FrameError(f"The ciphertext is bound to node {node}; expected was {expected.node}.")
    frame = AGGREGATE_MAGIC + data[4:_NODE_START] + data[_NODE_END:]
    return parse_aggregate(frame, expected, parameters, layout)
