"""Large models go through in pieces: the same bits as at once, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import plaintext

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy import packing, residues
from twopm_flower.privacy.backend import open_backend
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.packing import pack, pack_from, unpack, unpack_pieces
from twopm_flower.privacy.quantise import mean, quantise
from twopm_flower.privacy.residues import MODULUS, add_mod, sum_mod
from twopm_flower.privacy.update import encrypt_update, open_aggregate

SHAPES = st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=6)
METRICS = (Metric("correct", 1, 1000), Metric("loss", 10, 100.0))
TERMS = {"clip": 0.5, "max_samples": 40}


@pytest.fixture(params=[1, 3, 8])
def small_pieces(request, monkeypatch):
    monkeypatch.setattr(packing, "_CHUNK", request.param)
    monkeypatch.setattr(residues, "_BLOCK", request.param)


def at_once(values, parameters):
    """Pack by the definition: coefficient j is the sum of values[f C + j] << f w."""
    columns = -(-values.size // parameters.fields)
    padded = np.zeros(columns * parameters.fields, np.int64)
    padded[: values.size] = values
    fields = padded.reshape(parameters.fields, columns)
    return sum(field << (i * parameters.width) for i, field in enumerate(fields))


@pytest.mark.parametrize("fields", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 41])
@pytest.mark.usefixtures("small_pieces")
def test_pieces_pack_and_unpack_to_the_same_integers_as_the_whole(size, fields):
    parameters = plaintext(10, fields)
    values = np.random.default_rng(size).integers(
        -parameters.limit, parameters.limit, size, endpoint=True
    )
    packed = pack(values, parameters)
    assert packed.tolist() == at_once(values, parameters).tolist()
    assert unpack(packed, size, parameters, contributors=1).tolist() == values.tolist()
    found, times = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for start, piece in unpack_pieces(packed, size, parameters, contributors=1):
        found[start : start + piece.size] = piece
        times[start : start + piece.size] += 1
    assert found.tolist() == values.tolist()
    assert (times == 1).all()


@pytest.mark.usefixtures("small_pieces")
def test_every_value_is_asked_for_once():
    asked = []

    def source(start, stop):
        asked.extend(range(start, stop))
        return np.zeros(stop - start, np.int64)

    pack_from(source, 23, plaintext())
    assert sorted(asked) == list(range(23))


@pytest.mark.usefixtures("small_pieces")
def test_a_value_beyond_the_limit_is_named_by_its_place_in_the_whole():
    parameters = plaintext()
    values = np.zeros(41, np.int64)
    values[33] = parameters.limit + 1
    with pytest.raises(HeadroomError, match="Value 33 is"):
        pack(values, parameters)


@pytest.mark.parametrize("place", [0, 5, 11, 20])
@pytest.mark.usefixtures("small_pieces")
def test_a_sum_that_cannot_be_is_refused_in_whichever_piece_it_shows(place):
    parameters = plaintext()
    coefficients = np.zeros(21, np.int64)
    coefficients[place] = 1 << (parameters.fields * parameters.width)
    with pytest.raises(PrivacyError, match="not one of 3 updates"):
        unpack(coefficients, 41, parameters, contributors=3)
    coefficients[place] = 3 * parameters.limit + 1
    with pytest.raises(PrivacyError, match="not one of 3 updates"):
        unpack(coefficients, 41, parameters, contributors=3)


@given(SHAPES, st.integers(0, 60), st.integers(0, 60), st.booleans())
def test_a_reader_gives_any_piece_of_the_flattened_vector(shapes, first, length, fortran):
    rng = np.random.default_rng(0)
    order = np.asfortranarray if fortran else np.ascontiguousarray
    arrays = {
        str(i): order(rng.normal(size=shape)).reshape(shape) for i, shape in enumerate(shapes)
    }
    layout = Layout.of(arrays)
    whole = np.concatenate([array.ravel() for array in arrays.values()])
    start = min(first, layout.array_size)
    stop = min(start + length, layout.array_size)
    assert layout.reader(arrays)(start, stop).tolist() == whole[start:stop].tolist()


@given(SHAPES, st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 2]))
@settings(deadline=None, max_examples=60)
def test_an_update_in_pieces_opens_to_the_bits_of_one_made_at_once(shapes, fields, declared):
    chunk, packing._CHUNK = packing._CHUNK, 4
    try:
        an_update_in_pieces_and_at_once(shapes, fields, METRICS[:declared])
    finally:
        packing._CHUNK = chunk


def an_update_in_pieces_and_at_once(shapes, fields, declared):
    rng = np.random.default_rng(len(shapes))
    delta = {str(i): rng.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    layout = Layout.of(delta, declared)
    parameters = plaintext(10, fields)
    backend = open_backend(parameters)
    shared = {"layout": layout, "parameters": parameters, "backend": backend, "key": None, **TERMS}
    metrics = {m.name: 7.0 for m in declared}
    encrypted, clipped = encrypt_update(delta, metrics, samples=30, **shared)

    vector = np.concatenate([array.ravel().astype(np.float64) for array in delta.values()])
    values, beyond = quantise(vector, clip=0.5, limit=parameters.limit, samples=30, max_samples=40)
    whole = np.concatenate([values, [m.quantise(7.0) for m in declared]]).astype(np.int64)
    expected = at_once(whole, parameters) % MODULUS
    assert encrypted.c0.tolist() == expected.tolist()
    assert clipped == beyond

    total = add([backend.expand(encrypted)] * 3, max_nodes=10)
    found, sums = open_aggregate(total, samples_total=90, contributors=3, **shared)
    right = mean(3 * values, clip=0.5, limit=parameters.limit, samples_total=90, max_samples=40)
    assert np.concatenate([a.ravel() for a in found.values()]).tobytes() == right.tobytes()
    assert sums == {m.name: 3 * m.quantise(7.0) for m in declared}
    assert [a.shape for a in found.values()] == [a.shape for a in delta.values()]


@pytest.mark.usefixtures("small_pieces")
def test_residues_are_added_block_by_block_to_the_same_sum():
    rng = np.random.default_rng(5)
    vectors = [rng.integers(0, MODULUS, (3, 17), dtype=np.uint64) for _ in range(4)]
    vectors[0][0, :5] = MODULUS - 1
    kept = [vector.copy() for vector in vectors]
    right = vectors[0]
    for vector in vectors[1:]:
        right = add_mod(right, vector)
    assert np.array_equal(sum_mod(vectors), right)
    assert all(np.array_equal(a, b) for a, b in zip(vectors, kept, strict=True))


def test_ciphertexts_of_several_rows_add_up_in_full():
    rng = np.random.default_rng(6)
    parts = [
        Ciphertext(
            rng.integers(0, MODULUS, 20_000, dtype=np.uint64),
            rng.integers(0, MODULUS, (10, 2048), dtype=np.uint64),
        )
        for _ in range(3)
    ]
    total = add(parts, max_nodes=3)
    for half in ("c0", "c1"):
        big = sum(getattr(part, half).astype(object) for part in parts) % MODULUS
        assert (getattr(total, half) == big.astype(np.uint64)).all()


MEASURE = """
import numpy as np
from twopm_flower.privacy.backend import open_backend
from twopm_flower.privacy.binding import FrameContext
from twopm_flower.privacy.ciphertext import add
from twopm_flower.privacy.frame import encode_update
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.update import encrypt_update, open_aggregate

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))

def start():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark falls to what is used now
    return status("VmRSS")

parameters = AdditiveParameters.derive("bfv", 10)
backend = open_backend(parameters)
key = backend.generate_key()
small = {"weight": np.zeros((10, 1000), np.float32)}
delta = {"weight": np.full((10_000, 1_000), 0.25, np.float32)}
terms = {"parameters": parameters, "backend": backend, "key": key, "clip": 1.0}
encrypt_update(small, {}, layout=Layout.of(small), samples=1, max_samples=1, **terms)
before = start()
layout = Layout.of(delta)
update, _ = encrypt_update(delta, {}, layout=layout, samples=1, max_samples=1, **terms)
context = FrameContext("0x" + "11" * 32, 1, 1, "0x" + "22" * 20, "0x" + "33" * 32,
    parameters.identifier, layout.digest)
frame = encode_update(context, update)
encrypted = status("VmHWM") - before
del frame
total = backend.expand(update)
del update
between = start()
mean, _ = open_aggregate(
    total, layout=layout, samples_total=1, max_samples=1, contributors=1, **terms)
assert np.abs(mean["weight"] - 0.25).max() < 1e-5
print(encrypted, status("VmHWM") - between)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux only")
def test_ten_million_parameters_encrypt_and_open_within_300_mib_of_extra_memory():
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120
    )
    encrypting, opening = map(float, done.stdout.split())
    assert encrypting < 300
    assert opening < 300
