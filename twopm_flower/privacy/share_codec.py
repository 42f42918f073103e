"""The bytes of a share: 2048 values below 65537, 17 bits each, in one form only.

The low 16 bits of every value come first, little-endian, 4096 bytes. Then come their
seventeenth bits, 256 bytes: that of value i is bit ``i % 8`` of byte ``i // 8``. A value whose
seventeenth bit is set is 65536, so its low bits are zero.
"""

import numpy as np

from twopm_flower.errors import SharingError
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.sharing import Share, check_share

_LOW_BYTES = 2 * RING_DEGREE

SHARE_BYTES = _LOW_BYTES + RING_DEGREE // 8
"""4352: the length of a share."""


def pack_share(share: Share) -> bytes:
    """Return the 4352 bytes of a share.

    Parameters
    ----------
    share : ndarray of uint32, shape (2048,)

    Raises
    ------
    SharingError
        If it is no share.
    """
    check_share(share)
    high = np.packbits(share >> np.uint32(16) != 0, bitorder="little")
    return share.astype("<u2").tobytes() + high.tobytes()


def unpack_share(data: bytes) -> Share:
    """Return the share whose bytes these are, as a new array.

    Raises
    ------
    SharingError
        If the length is another, or a value is 65537 or more.
    """
    if len(data) != SHARE_BYTES:
        raise SharingError(f"A share is {SHARE_BYTES} bytes long, not {len(data)}.")
    low = np.frombuffer(data, "<u2", RING_DEGREE)
    high = np.unpackbits(np.frombuffer(data, np.uint8, offset=_LOW_BYTES), bitorder="little")
    return check_share(low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16))
