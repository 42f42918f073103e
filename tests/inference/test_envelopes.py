import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import RecordError
from twopm_flower.inference.envelope import (
    pack_answer,
    pack_request,
    unpack_answer,
    unpack_request,
)
from twopm_flower.records.inference import PredictionReceipt, PredictionRequest
from twopm_flower.records.statements import Domain, sign
from twopm_flower.signer.keystore import LocalSigner

SIGNER = LocalSigner(b"\x11" * 32)
DOMAIN = Domain(chain_id=5, verifying_contract="0x" + "00" * 20)
DIGEST = "0x" + "ab" * 32
REQUEST = sign(
    PredictionRequest(
        service=SIGNER.address,
        model_digest=DIGEST,
        parameters_id=DIGEST,
        request_digest=DIGEST,
        rows=1,
        issued_at=1_790_000_000,
    ),
    SIGNER,
    DOMAIN,
)
RECEIPT = sign(
    PredictionReceipt(
        task_id=DIGEST,
        card_digest=DIGEST,
        model_digest=DIGEST,
        parameters_id=DIGEST,
        requester=SIGNER.address,
        request_digest=DIGEST,
        response_digest=DIGEST,
        mask_commitment=DIGEST,
        issuer=SIGNER.address,
        rows=1,
        price=0,
        issued_at=1_790_000_000,
    ),
    SIGNER,
    DOMAIN,
)


@given(frame=st.binary(max_size=50), seed=st.none() | st.binary(min_size=32, max_size=32))
def test_what_was_packed_is_unpacked(frame, seed):
    assert unpack_request(pack_request(REQUEST, frame)) == (REQUEST, frame)
    assert unpack_answer(pack_answer(RECEIPT, seed, frame)) == (RECEIPT, seed, frame)


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_refused(body):
    for unpack, magic in ((unpack_request, b"TPI1"), (unpack_answer, b"TPO1")):
        for told in (body, magic + body, magic + struct.pack("<I", len(body)) + body):
            with pytest.raises(RecordError):
                unpack(told)


@pytest.mark.parametrize("length", [0, 1, 10_000, 2**31, 2**32 - 1])
def test_a_wrong_length_is_refused(length):
    body = pack_request(REQUEST, b"frame")
    with pytest.raises(RecordError):
        unpack_request(body[:4] + struct.pack("<I", length) + body[8:])


@pytest.mark.parametrize("seed", [b"", b"\x01" * 31, b"\x01" * 33])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(RecordError, match="32 bytes"):
        unpack_answer(pack_answer(RECEIPT, seed, b""))


@given(at=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_changed_bit_of_what_is_signed_is_another_statement_or_none(at, bit):
    body = bytearray(pack_request(REQUEST, b""))
    at %= len(body)
    body[at] ^= 1 << bit
    try:
        found, _ = unpack_request(bytes(body))
    except RecordError:
        return
    assert found != REQUEST
