"""What every registered encryption backend must do; a new one is tested by registering it."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privacy_factories import a_context, a_layout, update_keys

from twopm_flower.errors import ConfigError, KeyCeremonyError, PrivacyError
from twopm_flower.privacy.backend import backend_names, load_backend, open_backend
from twopm_flower.privacy.ciphertext import add
from twopm_flower.privacy.frame import (
    encode_aggregate,
    encode_update,
    parse_aggregate,
    parse_update,
)
from twopm_flower.privacy.keys import SecretBytes, SharedKey
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.packing import pack, unpack
from twopm_flower.privacy.parameters import AdditiveParameters, BackendName

pytestmark = pytest.mark.parametrize("name", backend_names())


def opened(name, max_nodes=10, fields=2):
    parameters = AdditiveParameters.derive(name, max_nodes, fields)
    return parameters, open_backend(parameters)


def coefficients(parameters, size, seed=0):
    """Random coefficients as large as one node may have them."""
    values = np.random.default_rng(seed).integers(
        -parameters.limit, parameters.limit, parameters.fields * size, endpoint=True
    )
    return pack(values, parameters)


def test_a_registered_backend_is_found_by_the_name_in_its_parameters(name):
    assert name in get_args(BackendName)
    parameters, backend = opened(name)
    assert isinstance(backend, load_backend(name))
    assert backend.name == name == parameters.backend
    assert backend.needs_key == (backend.generate_key() is not None)


@pytest.mark.parametrize("size", [1, 21, 2047, 2048, 2049, 6000])
def test_what_is_encrypted_is_decrypted(name, size):
    parameters, backend = opened(name)
    [own], key = update_keys(backend, 1)
    values = coefficients(parameters, size)
    seeded = backend.encrypt(values, own)
    ciphertext = backend.expand(seeded)
    assert seeded.c0.size == ciphertext.c0.size == parameters.wire_coefficients(2 * size)
    assert len(seeded.seeds) == len(ciphertext.c1) == parameters.rows(2 * size)
    found = backend.decrypt(ciphertext, key)
    assert found.dtype == np.int64
    assert np.array_equal(found, values)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nodes=st.integers(1, 8), fields=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_a_sum_decrypts_to_the_exact_integer_sum(name, nodes, fields, seed):
    parameters, backend = opened(name, nodes, fields)
    keys, key = update_keys(backend, nodes)
    parts = [coefficients(parameters, 33, seed + i) for i in range(nodes)]
    encrypted = [backend.encrypt(p, own) for p, own in zip(parts, keys, strict=True)]
    total = add([backend.expand(seeded) for seeded in encrypted], max_nodes=nodes)
    assert np.array_equal(backend.decrypt(total, key), sum(parts))


@pytest.mark.parametrize("nodes", [1, 3, 10, 100])
@pytest.mark.parametrize("fields", [1, 2])
def test_the_largest_inputs_of_the_largest_number_of_nodes_are_summed_exactly(name, nodes, fields):
    parameters, backend = opened(name, nodes, fields)
    keys, key = update_keys(backend, nodes)
    signs = np.array([1, -1, -1, 1, -1, -1, 1, 1])
    values = parameters.limit * signs
    part = pack(values, parameters)
    total = add([backend.expand(backend.encrypt(part, own)) for own in keys], max_nodes=nodes)
    found = unpack(backend.decrypt(total, key), 8, parameters, contributors=nodes)
    assert np.array_equal(found, nodes * values)


def test_expanding_twice_gives_the_same_digest_and_encrypting_twice_another_if_keyed(name):
    parameters, backend = opened(name)
    keys, _ = update_keys(backend, 2)
    layout = a_layout(41)
    context = a_context(parameters, layout)
    values = coefficients(parameters, parameters.coefficients(layout.size))
    first, second = [backend.encrypt(values, own) for own in keys]
    assert backend.expand(first).digest(context) == backend.expand(first).digest(context)
    same = backend.expand(first).digest(context) == backend.expand(second).digest(context)
    assert same == (not backend.needs_key)


def test_ciphertexts_survive_their_frames(name):
    parameters, backend = opened(name)
    keys, key = update_keys(backend, 3)
    layout = a_layout(5000)
    context = a_context(parameters, layout)
    parts = [coefficients(parameters, parameters.coefficients(layout.size), i) for i in range(3)]
    arrived = [
        parse_update(
            encode_update(context, backend.encrypt(p, own), name), context, parameters, layout
        )
        for p, own in zip(parts, keys, strict=True)
    ]
    total = add([backend.expand(seeded) for seeded in arrived], max_nodes=10)
    total = parse_aggregate(encode_aggregate(context, total, name), context, parameters, layout)
    assert np.array_equal(backend.decrypt(total, key), sum(parts))


def test_a_coefficient_with_too_many_bits_is_never_opened_as_another(name):
    parameters, backend = opened(name)
    for beyond in (1 << (parameters.plain_bits - 1), -(1 << (parameters.plain_bits - 1))):
        [own], key = update_keys(backend, 1)
        with pytest.raises(PrivacyError):
            backend.decrypt(backend.expand(backend.encrypt(np.array([beyond]), own)), key)


def test_a_missing_or_foreign_key_is_refused(name):
    parameters, backend = opened(name)
    [own], _ = update_keys(backend, 1)
    values = coefficients(parameters, 3)
    ciphertext = backend.expand(backend.encrypt(values, own))
    wrong = [SharedKey("another", SecretBytes(bytes(512)))]
    if isinstance(own, OneTimeKey):
        wrong += [None, backend.generate_key()]
    else:
        wrong.append(OneTimeKey.fresh(bytes(32)))
        wrong.append(None if backend.needs_key else SharedKey(name, SecretBytes(b"x")))
    for candidate in wrong:
        with pytest.raises(PrivacyError):
            backend.encrypt(values, candidate)
        with pytest.raises(PrivacyError):
            backend.decrypt(ciphertext, candidate)


def test_what_another_key_opens_is_noticed(name):
    parameters, backend = opened(name)
    if not backend.needs_key:
        return
    size = 2001
    [own], _ = update_keys(backend, 1)
    ciphertext = backend.expand(backend.encrypt(coefficients(parameters, size // 2 + 1), own))
    _, other = update_keys(backend, 1)
    with pytest.raises(PrivacyError, match=r"key is not the one|opened key is wrong"):
        unpack(backend.decrypt(ciphertext, other), size, parameters, contributors=1)


def test_keys_differ_and_survive_being_written(name):
    _, backend = opened(name)
    key = backend.generate_key()
    if key is None:
        assert not backend.needs_key
        return
    assert key.key_id != backend.generate_key().key_id
    again = SharedKey.from_bytes(key.to_bytes())
    assert (again.key_id, again.backend) == (key.key_id, name)


def test_a_damaged_secret_is_refused(name):
    parameters, backend = opened(name)
    [key], _ = update_keys(backend, 1)
    if not isinstance(key, SharedKey):
        return
    secret = key.secret.reveal()
    for bad in (b"", secret[:-1], secret + b"\0", bytes(len(secret)), b"\xff" * len(secret)):
        with pytest.raises(KeyCeremonyError):
            backend.encrypt(coefficients(parameters, 3), SharedKey(name, SecretBytes(bad)))


def test_an_unknown_backend_is_refused_with_the_installed_ones(name):
    with pytest.raises(ConfigError, match=name):
        load_backend("rot13")
