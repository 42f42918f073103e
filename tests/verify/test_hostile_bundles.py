"""Whatever a bundle's JSON is turned into, the verifier answers; it never crashes or agrees."""

import copy
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_simulator import simulate

from twopm_flower.errors import RecordError
from twopm_flower.records.bundle import RunBundle
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.verify import verify_bundle

OPTIONS = {"nodes": 3, "rounds": 2, "repeated_round": None}
ONE_TIME = {"nodes": 4, "rounds": 2, "repeated_round": None, "trust_mode": "one-time-key"}
VALUE = simulate(**OPTIONS).bundle.to_json()
ONE_TIME_VALUE = simulate(**ONE_TIME).bundle.to_json()

# What may be left out, and is then said to be missing.
OPTIONAL = re.compile(
    r"rounds/\d+/(record|evaluations|models/\d+)$|closing$|finalisation$|ciphertexts$"
)
# One opening more than the threshold; fingerprints whose ciphertext is there, or the reverse.
OPTIONAL_WITH_ONE_TIME_KEYS = re.compile(
    OPTIONAL.pattern + r"|rounds/\d+/(openings|fingerprints)/\d+$|ciphertexts/0x"
)


def containers(value, path=()):
    if isinstance(value, dict | list):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from containers(inner, (*path, key))


PATHS = sorted(containers(VALUE), key=str)
ONE_TIME_PATHS = sorted(containers(ONE_TIME_VALUE), key=str)
REPLACEMENTS = st.sampled_from(
    [None, True, 0, -1, 2**53 - 1, 1.5, "", "0x", "0x" + "00" * 32, "x" * 1000, [], {}, [[]]]
)


def at(value, path):
    for step in path:
        value = value[step]
    return value


CHANGES = st.sampled_from(["replace", "drop", "double", "swap", "graft"])


def deformations(paths):
    path = st.sampled_from(paths)
    return st.tuples(CHANGES, path, st.integers(0, 50), REPLACEMENTS, path)


def deformed(honest, change, path, number, replacement, other):
    """Return a deep copy with one element replaced, dropped, doubled or moved, and its path."""
    value = copy.deepcopy(honest)
    inner = at(value, path)
    keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    if not keys:
        return value, path
    key = keys[number % len(keys)]
    if change == "replace":
        inner[key] = replacement
    elif change == "drop":
        del inner[key]
    elif change == "double" and isinstance(inner, list):
        inner.insert(key, copy.deepcopy(inner[key]))
    elif change == "swap":
        last = keys[-1]
        inner[key], inner[last] = inner[last], inner[key]
    else:
        inner[key] = copy.deepcopy(at(honest, other))
    return value, (*path, key)


def check(options, honest, optional, *deformation):
    value, changed = deformed(honest, *deformation)
    try:
        bundle = RunBundle.from_bytes(canonical_bytes(value))
    except RecordError:
        return
    report = verify_bundle(bundle, chain=simulate(**options).chain)
    assert report.exit_code in (0, 1)
    if report.exit_code == 0 and value != honest:
        assert optional.match("/".join(map(str, changed))), changed


many = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@many
@given(deformations(PATHS))
def test_a_deformed_bundle_is_refused_without_a_crash(deformation):
    check(OPTIONS, VALUE, OPTIONAL, *deformation)


@many
@given(deformations(ONE_TIME_PATHS))
def test_a_deformed_bundle_of_one_time_keys_is_refused_without_a_crash(deformation):
    check(ONE_TIME, ONE_TIME_VALUE, OPTIONAL_WITH_ONE_TIME_KEYS, *deformation)


@pytest.mark.parametrize("maximum", [1e308, 5e-324])
def test_absurd_scales_in_the_terms_do_not_crash_the_verifier(maximum):
    value = copy.deepcopy(VALUE)
    for kind in ("train_metrics", "evaluation_metrics"):
        for metric in value["terms"][kind]:
            metric |= {"scale": 2**32 - 1, "maximum": maximum}
    bundle = RunBundle.from_bytes(canonical_bytes(value))
    assert verify_bundle(bundle, chain=simulate(**OPTIONS).chain).exit_code == 1
