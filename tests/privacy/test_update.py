"""From arrays to the mean of arrays, the same in every backend and on every node."""

import subprocess
import sys

import numpy as np
import pytest
from privacy_factories import METRICS, a_layout, update_keys

from twopm_flower.errors import HeadroomError, LayoutError, PrivacyError
from twopm_flower.privacy.backend import backend_names, open_backend
from twopm_flower.privacy.ciphertext import add
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.quantise import error_bound
from twopm_flower.privacy.update import encrypt_update, open_aggregate

SAMPLES = [120, 37, 500]
TERMS = {"clip": 2.0, "max_samples": 500}


def some_deltas(layout, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in layout.arrays}
        for _ in SAMPLES
    ]


def a_round(name, layout, deltas, metrics=({"correct": 3, "loss": 0.25},) * 3):
    parameters = AdditiveParameters.derive(name, 10)
    backend = open_backend(parameters)
    shared = {
        "layout": layout,
        "parameters": parameters,
        "backend": backend,
        **TERMS,
    }
    keys, sum_key = update_keys(backend, len(SAMPLES))
    made = [
        encrypt_update(delta, m, samples=samples, key=key, **shared)
        for delta, m, samples, key in zip(deltas, metrics, SAMPLES, keys, strict=True)
    ]
    total = add([backend.expand(c) for c, _ in made], max_nodes=10)
    return total, {**shared, "key": sum_key}, [clipped for _, clipped in made]


def opened(total, shared, **changes):
    return open_aggregate(
        total, **{"samples_total": sum(SAMPLES), "contributors": 3, **shared, **changes}
    )


@pytest.mark.parametrize("size", [2, 41, 5001])
def test_all_backends_open_the_same_bits(size):
    layout = a_layout(size)
    deltas = some_deltas(layout)
    results = [opened(*a_round(name, layout, deltas)[:2]) for name in backend_names()]
    assert len(results) >= 2
    first, first_metrics = results[0]
    for delta, metrics in results[1:]:
        assert metrics == first_metrics
        for name, array in first.items():
            assert array.tobytes() == delta[name].tobytes()


@pytest.mark.parametrize("name", backend_names())
def test_the_mean_is_the_weighted_mean_within_the_stated_error(name):
    layout = a_layout(2001)
    deltas = some_deltas(layout, 1)
    total, shared, clipped = a_round(name, layout, deltas)
    found, metrics = opened(total, shared)
    bound = error_bound(
        clip=2.0,
        limit=shared["parameters"].limit,
        contributors=3,
        samples_total=sum(SAMPLES),
        max_samples=500,
    )
    assert bound < 1e-4
    for array in ("weight", "bias"):
        exact = sum(
            n * np.clip(d[array].astype(np.float64), -2, 2)
            for n, d in zip(SAMPLES, deltas, strict=True)
        ) / sum(SAMPLES)
        assert np.abs(found[array] - exact).max() <= bound
        assert found[array].dtype == np.float64
    assert clipped == [sum(int((np.abs(a) > 2).sum()) for a in d.values()) for d in deltas]
    assert sum(clipped) > 0
    assert metrics == {"correct": 9, "loss": 750}


def test_one_model_without_metrics_can_be_summed_too():
    layout = Layout((("w", (3,)),))
    deltas = [{"w": np.full(3, x)} for x in (1.0, -1.0, 0.5)]
    found, metrics = opened(*a_round("bfv", layout, deltas, ({},) * 3)[:2])
    assert metrics == {}
    assert found["w"] == pytest.approx([(120 - 37 + 250) / 657] * 3, abs=1e-5)


def test_nothing_is_encrypted_that_does_not_fit():
    layout = a_layout(5)
    good = some_deltas(layout)
    ruined = [{**good[0], "bias": np.array([np.nan])}, *good[1:]]
    with pytest.raises(HeadroomError, match="'bias' has nan"):
        a_round("bfv", layout, ruined)
    with pytest.raises(LayoutError):
        a_round("bfv", layout, [{"weight": good[0]["weight"]}, *good[1:]])
    with pytest.raises(HeadroomError, match="'correct'"):
        a_round("bfv", layout, good, ({"correct": 1001, "loss": 0.0},) * 3)
    with pytest.raises(LayoutError, match="label"):
        a_round("bfv", layout, good, ({"correct": 1, "loss": 0.0, "label": 1},) * 3)


@pytest.mark.parametrize("name", backend_names())
def test_more_than_the_named_contributors_could_have_sent_is_noticed(name):
    layout = a_layout(50)
    limits = [{n: np.full(s, 2.0) for n, s in layout.arrays} for _ in SAMPLES]
    parameters = AdditiveParameters.derive(name, 10)
    backend = open_backend(parameters)
    keys, sum_key = update_keys(backend, len(limits))
    shared = {"layout": layout, "parameters": parameters, "backend": backend, **TERMS}
    metrics = {"correct": 1000, "loss": 0.0}
    made = [
        backend.expand(encrypt_update(d, metrics, samples=500, key=key, **shared)[0])
        for d, key in zip(limits, keys, strict=True)
    ]
    total, shared = add(made, max_nodes=10), {**shared, "key": sum_key}
    assert opened(total, shared, samples_total=1500)[1]["correct"] == 3000
    with pytest.raises(PrivacyError):
        opened(total, shared, samples_total=1000, contributors=2)


def test_a_wrong_key_is_noticed():
    layout = a_layout(41)
    total, shared, _ = a_round("bfv", layout, some_deltas(layout))
    with pytest.raises(PrivacyError):
        opened(total, {**shared, "key": shared["backend"].generate_key()})


def test_a_metric_sum_that_no_honest_nodes_reach_is_noticed():
    layout, one = a_layout(41), (METRICS[0],)
    total, shared, _ = a_round(
        "plaintext", layout, some_deltas(layout), ({"correct": 1000, "loss": 1.0},) * 3
    )
    narrow = a_layout(41, (type(one[0])("correct", 1, 999), METRICS[1]))
    with pytest.raises(PrivacyError, match="'correct' opened as 3000"):
        opened(total, {**shared, "layout": narrow})


def test_what_the_verifier_imports_loads_no_heavy_library():
    modules = [
        "residues",
        "parameters",
        "layout",
        "frame",
        "packing",
        "quantise",
        "masking",
        "ciphertext",
        "binding",
        "keys",
        "key_deal",
        "update",
        "backend",
    ]
    program = (
        "import sys\n"
        + "".join(f"import twopm_flower.privacy.{m}\n" for m in modules)
        + "heavy = {'torch', 'tenseal', 'flwr', 'web3', 'pandas'}\n"
        + "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_million_parameters_stay_exact_and_within_bounded_memory():
    import resource

    layout = a_layout(1_000_000)
    deltas = some_deltas(layout)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bfv_mean, bfv_metrics = opened(*a_round("bfv", layout, deltas)[:2])
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    plain_mean, plain_metrics = opened(*a_round("plaintext", layout, deltas)[:2])
    assert bfv_metrics == plain_metrics
    assert bfv_mean["weight"].tobytes() == plain_mean["weight"].tobytes()
    assert grown_mib < 300
