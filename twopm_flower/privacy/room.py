"""Room for large vectors: in large pages, and used again when nothing refers to it any more.

Memory that comes fresh from the system is cleared page by page when it is first written to,
which for four megabytes takes as long as adding as many residues, and longer in pages of 4 KiB.
"""

import weakref
from collections import deque

import numpy as np
import numpy.typing as npt

_PAGE = 1 << 18
"""Words in a large page of most systems, 2 MiB."""

_KEPT_WORDS = 32 * _PAGE
_FEWEST_WORDS = _PAGE

Words = npt.NDArray[np.uint64]

_free: deque[Words] = deque()


def room_for(count: int) -> Words:
    """Return uninitialised room for words of 64 bits.

    Up to 64 MiB that were given back stay with the process. Views keep room from being used
    again just as the array itself does.
    """
    if count < _FEWEST_WORDS:
        return np.empty(count, np.uint64)
    whole = -(-count // _PAGE) * _PAGE
    kept = _taken(whole)
    room = _fresh(whole) if kept is None else kept
    # An array on a buffer that is no array: views of it refer to it, not to what is below.
    lent = np.frombuffer(room.data, np.uint64)
    weakref.finalize(lent, _give_back, room).atexit = False
    return lent[:count]


def _taken(words: int) -> Words | None:
    """Return free room of that size, the latest first."""
    for _ in range(len(_free)):
        try:
            room = _free.pop()
        except IndexError:  # another thread was quicker
            return None
        if room.size == words:
            return room
        _free.appendleft(room)
    return None


def _give_back(room: Words) -> None:
    if sum(free.size for free in tuple(_free)) + room.size <= _KEPT_WORDS:
        _free.append(room)


def _fresh(words: int) -> Words:
    """Return room that starts with a large page.

    numpy asks the system for large pages where it asks for 4 MiB and more; what is over stays
    untouched.
    """
    room = np.empty(words + 2 * _PAGE, np.uint64)
    first = -room.__array_interface__["data"][0] // room.itemsize % _PAGE
    return room[first : first + words]
