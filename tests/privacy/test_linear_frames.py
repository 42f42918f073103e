"""Hostile bytes: requests and responses that are malformed end in errors of ours, at once."""

import random
import struct

import numpy as np
import pytest
from linear_factories import MODEL, LinearModel

from twopm_flower.errors import BindingError, FrameError
from twopm_flower.privacy.linear_frame import (
    REQUEST_HEADER_BYTES,
    RESPONSE_HEADER_BYTES,
    encode_response,
    parse_request,
    parse_response,
    request_digest,
    response_digest,
)
from twopm_flower.privacy.residues import MODULUS

PUBLIC, SECRET = LinearModel(2, 6), LinearModel(2, 6, "secret")
CASES = [
    (model, preset, rows, model.encrypt(model.rows(rows), preset)[0])
    for model in (PUBLIC, SECRET)
    for preset, rows in (("latency", 1), ("batch", 1), ("batch", 9))
]


def refused(model, data, error=FrameError, **options):
    with pytest.raises(error) as caught:
        model.parse(bytes(data), **options)
    return str(caught.value)


@pytest.mark.parametrize(("model", "preset", "rows", "data"), CASES)
def test_requests_and_responses_have_one_encoding_each(model, preset, rows, data):
    request = model.parse(data)
    assert (request.preset, request.rows) == (preset, rows)
    assert request.to_bytes() == data
    assert request.digest == request_digest(data)
    answered = model.answer(data)
    response = parse_response(
        answered, model.parameters, preset=preset, rows=rows, digest=request.digest
    )
    assert encode_response(request, response.scores, response.c1) == answered
    assert len(answered) - RESPONSE_HEADER_BYTES == model.parameters.response_bytes(preset, rows)
    assert response_digest(answered) != request_digest(answered)


@pytest.mark.parametrize(("model", "preset", "rows", "data"), CASES)
def test_no_other_length_is_taken(model, preset, rows, data):
    ends = [0, 1, REQUEST_HEADER_BYTES - 1, REQUEST_HEADER_BYTES, len(data) - 7, len(data) - 1]
    for end in ends:
        assert "bytes" in refused(model, data[:end])
    for more in (b"\0", bytes(7), bytes(100_000)):
        assert "bytes" in refused(model, data + more)
    answered = model.answer(data)
    for other in (answered[:-1], answered + b"\0", answered[:20], b""):
        with pytest.raises(FrameError, match="bytes"):
            parse_response(
                other, model.parameters, preset=preset, rows=rows, digest=request_digest(data)
            )


def test_a_number_of_rows_is_checked_before_anything_is_made_for_it():
    for model, _, _, data in CASES:
        for rows in (0, 10, 2**31, 2**32 - 1):
            changed = bytearray(data)
            struct.pack_into("<I", changed, 72, rows)
            refused(model, changed)
    data, _ = PUBLIC.encrypt(PUBLIC.rows(9), "batch")
    assert "at most 8" in refused(PUBLIC, data, max_rows=8)


@pytest.mark.parametrize(
    ("place", "byte", "said"),
    [
        (0, 0, "starts with"),
        (4, 9, "version 9"),
        (6, 7, "no preset 7"),
        (7, 2, "weights of policy 2"),
        (8, 1, "for the parameters"),
        (41, 1, "for the model"),
    ],
)
def test_what_is_wrong_at_the_start_is_said(place, byte, said):
    data, _ = PUBLIC.encrypt(PUBLIC.rows(1), "latency")
    changed = bytearray(data)
    changed[place] = byte if changed[place] != byte else byte + 1
    assert said in refused(PUBLIC, changed)


def test_another_model_or_other_parameters_are_told_apart_from_malformed_bytes():
    data, _ = PUBLIC.encrypt(PUBLIC.rows(1), "latency")
    with pytest.raises(BindingError):
        parse_request(data, PUBLIC.parameters, model_digest="0x" + "11" * 32, max_rows=1)
    with pytest.raises(BindingError):
        parse_request(data, LinearModel(3, 6).parameters, model_digest=MODEL, max_rows=1)


@pytest.mark.parametrize(("model", "preset", "rows", "data"), CASES)
def test_every_residue_is_below_the_modulus(model, preset, rows, data):
    key = 32 if model is SECRET else 0
    count = (len(data) - REQUEST_HEADER_BYTES - key) // 7
    for index in {0, 1, count // 2, count - 1}:
        for value in (MODULUS, (1 << 56) - 1):
            changed = bytearray(data)
            start = REQUEST_HEADER_BYTES + key + 7 * index
            changed[start : start + 7] = value.to_bytes(7, "little")
            assert "not below the modulus" in refused(model, changed)
    answered = bytearray(model.answer(data))
    answered[-7:] = MODULUS.to_bytes(7, "little")
    with pytest.raises(FrameError, match="not below the modulus"):
        parse_response(
            bytes(answered), model.parameters, preset=preset, rows=rows, digest=request_digest(data)
        )


def test_a_response_answers_what_was_asked_and_nothing_else():
    model, _, _, data = CASES[1]
    response, digest = model.answer(data), request_digest(data)
    for preset, rows in (("latency", 1), ("batch", 2)):
        with pytest.raises(FrameError, match="asked for were"):
            parse_response(response, model.parameters, preset=preset, rows=rows, digest=digest)
    other = CASES[0][3]
    with pytest.raises(BindingError, match="answers the request"):
        parse_response(
            response, model.parameters, preset="batch", rows=1, digest=request_digest(other)
        )


def test_random_changes_end_in_our_errors_or_in_a_request_that_is_answered():
    draw = random.Random(5)
    parsed = 0
    for number in range(3000):
        model, _, _, data = CASES[number % len(CASES)]
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(changed))
            changed[start : start + draw.randint(0, 9)] = draw.randbytes(draw.randint(0, 9))
        try:
            request = model.parse(bytes(changed))
        except FrameError:
            continue
        parsed += 1
        assert request.to_bytes() == bytes(changed)
        if parsed % 20 == 0:
            model.answer(bytes(changed))
    assert parsed > 20


def test_all_residues_of_one_value_are_answered_without_overflow():
    for model, preset, rows, data in CASES:
        for value in (0, 1, MODULUS // 2, MODULUS - 1):
            request = model.parse(data)
            extreme = type(request)(
                **{
                    **request.__dict__,
                    "c0": np.full_like(request.c0, value),
                    "public_key": None
                    if request.public_key is None
                    else np.full(2048, value, np.uint64),
                }
            ).to_bytes()
            parse_response(
                model.answer(extreme),
                model.parameters,
                preset=preset,
                rows=rows,
                digest=request_digest(extreme),
            )
