"""Room that is used again is never room that is still in use."""

import gc
import threading

import numpy as np
import pytest

from twopm_flower.privacy import room
from twopm_flower.privacy.room import room_for

LARGE = 600_000


@pytest.fixture(autouse=True)
def _nothing_free():
    gc.collect()
    room._free.clear()
    yield
    room._free.clear()


def address(array):
    return array.__array_interface__["data"][0]


def test_room_has_the_size_that_was_asked_for_and_can_be_written():
    for count in (0, 1, 5000, room._PAGE - 1, room._PAGE, LARGE):
        found = room_for(count)
        assert (found.shape, found.dtype) == ((count,), np.uint64)
        found[...] = 7


def test_large_room_starts_with_a_large_page():
    assert address(room_for(LARGE)) % (2 << 20) == 0


def test_what_nothing_refers_to_is_used_again():
    first = address(room_for(LARGE))
    assert address(room_for(LARGE)) == first
    assert address(room_for(LARGE + 1)) == first, "it takes as many pages"


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[5:10],
        lambda array: array.view(np.float64),
        lambda array: array.reshape(2, -1).T[3:],
        lambda array: memoryview(array)[3:],
        lambda array: np.ndarray(10, "V7", array, strides=(8,)),
        lambda array: np.frombuffer(array, np.uint8)[1:],
    ],
)
def test_what_a_view_refers_to_is_not(view):
    array = room_for(LARGE)
    first = address(array)
    kept = view(array)
    del array
    gc.collect()
    assert address(room_for(LARGE)) != first
    del kept
    gc.collect()
    assert first in {address(room_for(LARGE)), *map(address, room._free)}


def test_room_of_another_size_is_left_for_others():
    small, large = room_for(LARGE), room_for(3 * LARGE)
    places = address(small), address(large)
    del small, large
    again = room_for(LARGE), room_for(3 * LARGE)
    assert tuple(map(address, again)) == places


def test_a_bounded_amount_stays_with_the_process():
    many = [room_for(LARGE) for _ in range(30)]
    many.append(room_for(40 * room._PAGE))
    del many
    assert 0 < sum(free.nbytes for free in room._free) <= 64 << 20


def test_threads_never_share_room():
    wrong = []

    def work(mark):
        for _ in range(30):
            mine = room_for(room._PAGE)
            mine[::4096] = mark
            if (mine[::4096] != mark).any():
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
