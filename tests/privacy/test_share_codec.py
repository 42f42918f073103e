"""A share has one form of 4352 bytes, and other bytes are no share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from twopm_flower.errors import SharingError
from twopm_flower.privacy.share_codec import SHARE_BYTES, pack_share, unpack_share

edges = st.one_of(st.integers(0, 65536), st.sampled_from([0, 1, 255, 256, 65535, 65536]))


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint32, 2048, elements=edges))
def test_a_share_comes_back_from_its_bytes(share):
    data = pack_share(share)
    assert len(data) == SHARE_BYTES == 4352
    found = unpack_share(data)
    assert found.dtype == np.uint32
    assert (found == share).all()
    found.fill(0)  # a new array, which may be erased


def test_the_bytes_are_where_the_format_says():
    share = np.zeros(2048, np.uint32)
    share[0], share[1], share[9] = 0x0201, 65536, 65535
    data = pack_share(share)
    assert data[:4] == b"\x01\x02\0\0"
    assert data[18:20] == b"\xff\xff"
    assert data[4096] == 0b10
    assert not any(data[4097:])


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint32, 2048, elements=edges), st.integers(0, 8 * SHARE_BYTES - 1))
def test_a_flipped_bit_is_another_share_or_none(share, bit):
    data = bytearray(pack_share(share))
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = unpack_share(bytes(data))
    except SharingError:
        return
    assert (found != share).sum() == 1
    assert pack_share(found) == data


@pytest.mark.parametrize("length", [0, SHARE_BYTES - 1, SHARE_BYTES + 1])
def test_another_length_is_refused(length):
    with pytest.raises(SharingError, match=f"4352 bytes long, not {length}"):
        unpack_share(bytes(length))


def test_a_value_beyond_the_field_is_refused_both_ways():
    share = np.zeros(2048, np.uint32)
    share[3] = 65537
    with pytest.raises(SharingError, match="Value 3 of a share is not below 65537"):
        pack_share(share)
    data = bytearray(SHARE_BYTES)
    data[6], data[4096] = 1, 0b1000
    with pytest.raises(SharingError, match="Value 3 of a share is not below 65537"):
        unpack_share(bytes(data))
