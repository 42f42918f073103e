"""The showcase app, run by its own parts in this process: simulated nodes, student data."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from safetensors.numpy import load_file

from twopm_flower.federated import EncryptedAggregation, LocalGrid, SimulationOptions

ROOT = Path(__file__).resolve().parents[2]


def assert_same(model, expected) -> None:
    assert model.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(model[name], array)


def showcase_config(**changes) -> dict:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {**project["tool"]["flwr"]["app"]["config"], **changes}


def run_showcase(home: Path, nodes: int, monkeypatch, **changes):
    """Run the app of the package; returns the last model of each node and the result."""
    from twopm_flower.app.client_app import app
    from twopm_flower.app.server_app import initial_model, strategy_of, train_config, trust_mode

    monkeypatch.setenv("TWOPM_HOME", str(home))
    run = showcase_config(**changes)
    configs = [{"partition-id": i, "num-partitions": nodes} for i in range(nodes)]
    grid = LocalGrid(app, configs, run)
    strategy = EncryptedAggregation(
        strategy_of(run),
        simulation=SimulationOptions(
            trust_mode=trust_mode(run),
            clip=float(run["clip"]),
            min_contributors=int(run["min-contributors"]),
        ),
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({n: Array(v) for n, v in initial_model(run).items()}),
        num_rounds=int(run["rounds"]),
        train_config=ConfigRecord(train_config(run)),
    )
    last = f"simulation/node-*/tasks/*/model-{run['rounds']}.safetensors"
    return [load_file(file) for file in sorted(home.glob(last))], result


def test_the_showcase_gives_bit_equal_models_with_and_without_encryption(
    tmp_path, monkeypatch, student_data
):
    monkeypatch.setenv("TWOPM_DATA_DIR", str(student_data))
    encrypted, result = run_showcase(tmp_path / "a", 3, monkeypatch, rounds=1)
    plain, other = run_showcase(
        tmp_path / "b", 3, monkeypatch, rounds=1, **{"trust-mode": "plaintext"}
    )
    assert len(encrypted) == len(plain) == 3
    for model in (*encrypted, *plain):
        assert_same(model, encrypted[0])
    for round_ in (0, 1):
        for name in ("num-examples", "correct", "loss"):
            values = [r.evaluate_metrics_clientapp[round_][name] for r in (result, other)]
            assert values[0] == values[1]
    assert result.evaluate_metrics_clientapp[1]["mean-correct"] > 0.8


@pytest.mark.full
def test_the_encrypted_showcase_comes_within_a_point_of_the_centralised_regression(
    tmp_path, monkeypatch, student_data
):
    from twopm_flower.datasets import FeatureEncoder, load_students, partition, pool, split_holdout
    from twopm_flower.models import LogisticRegression, fit_centralised

    monkeypatch.setenv("TWOPM_DATA_DIR", str(student_data))
    frame = load_students("mat", student_data).frame
    x, y = FeatureEncoder("A", "pass").encode(frame)
    gaps = []
    for seed in range(10):
        _, result = run_showcase(tmp_path / str(seed), 3, monkeypatch, seed=seed)
        splits = [split_holdout(part, seed=seed) for part in partition(frame, 3, seed=seed)]
        pooled = pool(splits)
        central = LogisticRegression(x.shape[1]).evaluate(
            fit_centralised(x[pooled.train], y[pooled.train]),
            x[pooled.held_out],
            y[pooled.held_out],
        )
        shutil.rmtree(tmp_path / str(seed))
        opened = result.evaluate_metrics_clientapp[5]
        assert opened["num-examples"] == central.rows
        gaps.append(central.accuracy - opened["mean-correct"])
    assert abs(float(np.mean(gaps))) <= 0.01
