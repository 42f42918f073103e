import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import ConfigError, DataError
from twopm_flower.models import (
    DEFAULTS,
    ArraySpec,
    LogisticRegression,
    Model,
    create_model,
    fit_centralised,
    model_names,
)

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(60, 4)).astype(np.float32)
Y = (X @ np.array([2, -1, 0.5, 0]) + RANDOM.normal(size=60) > 0.3).astype(np.float32)
MODEL = LogisticRegression(4)
SETTINGS = {"epochs": 5, "lr": 0.1, "batch_size": 16, "l2": 0.01, "seed": 3}


def arrays(weight: list[float], bias: float) -> dict[str, np.ndarray]:
    return {
        "weight": np.array([weight], dtype=np.float32),
        "bias": np.array([bias], dtype=np.float32),
    }


def flat(model: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([model["weight"][0], model["bias"]])


def objective(model: dict[str, np.ndarray], l2: float) -> float:
    return MODEL.evaluate(model, X, Y).loss + 0.5 * l2 * float(np.sum(model["weight"] ** 2))


def test_the_family_is_registered_and_keeps_the_interface():
    assert "logistic-regression" in model_names()
    model = create_model("logistic-regression", 4)
    assert isinstance(model, Model)
    assert model.name == "logistic-regression"
    assert model.layout == (ArraySpec("weight", (1, 4)), ArraySpec("bias", (1,)))
    assert [spec.size for spec in model.layout] == [4, 1]
    assert {name: array.shape for name, array in model.initial(1).items()} == {
        "weight": (1, 4),
        "bias": (1,),
    }


def test_an_unknown_family_is_refused_with_the_choice():
    with pytest.raises(ConfigError, match=r"'tree'.*logistic-regression"):
        create_model("tree", 4)
    with pytest.raises(ConfigError, match="n_features is 0"):
        create_model("logistic-regression", 0)


def test_importing_and_evaluating_does_without_torch():
    script = (
        "import sys, numpy as np\n"
        "from twopm_flower.models import LogisticRegression, fit_centralised\n"
        "model = LogisticRegression(2)\n"
        "x = np.eye(2, dtype=np.float32); y = np.array([0, 1], dtype=np.float32)\n"
        "model.evaluate(fit_centralised(x, y, l2=0.1), x, y)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bytes_whatever_torch_is_set_to(threads):
    reference, _ = MODEL.train_local(MODEL.initial(0), X, Y, **SETTINGS)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(threads)
    state = torch.random.get_rng_state()
    try:
        trained, _ = MODEL.train_local(MODEL.initial(0), X, Y, **SETTINGS)
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.random.get_rng_state(), state)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)
    assert {n: a.tobytes() for n, a in trained.items()} == {
        n: a.tobytes() for n, a in reference.items()
    }


def test_the_seed_orders_the_batches_and_a_full_batch_has_no_order():
    by_seed = [
        MODEL.train_local(MODEL.initial(0), X, Y, **{**SETTINGS, "seed": seed})[0]
        for seed in (1, 2)
    ]
    assert flat(by_seed[0]).tolist() != flat(by_seed[1]).tolist()
    full = [
        MODEL.train_local(MODEL.initial(0), X, Y, **{**SETTINGS, "seed": s, "batch_size": 60})[0]
        for s in (1, 2)
    ]
    np.testing.assert_allclose(flat(full[0]), flat(full[1]), atol=1e-6)


def test_training_leaves_the_given_arrays_alone_and_reports_the_trained_model():
    start = MODEL.initial(0)
    trained, metrics = MODEL.train_local(start, X, Y, **SETTINGS)
    assert not flat(start).any()
    assert flat(trained).all()
    assert all(array.dtype == np.float32 for array in trained.values())
    evaluated = MODEL.evaluate(trained, X, Y)
    assert (metrics.correct, metrics.rows, metrics.loss_sum) == (
        evaluated.correct,
        60,
        evaluated.loss_sum,
    )
    assert metrics.loss < np.log(2)


@pytest.mark.parametrize("l2", [0.002, 0.05, 1.0])
def test_long_training_reaches_the_solution_of_newtons_method(l2):
    settings = {**SETTINGS, "epochs": 600, "lr": 0.2, "batch_size": 60, "l2": l2}
    trained, _ = MODEL.train_local(MODEL.initial(0), X, Y, **settings)
    np.testing.assert_allclose(flat(trained), flat(fit_centralised(X, Y, l2=l2)), atol=2e-4)


def test_no_model_has_a_lower_objective_than_the_centralised_one():
    best = fit_centralised(X, Y, l2=0.03)
    for _ in range(50):
        other = {n: a + RANDOM.normal(0, 0.02, a.shape).astype(np.float32) for n, a in best.items()}
        assert objective(other, 0.03) > objective(best, 0.03)


@pytest.mark.parametrize("l2", [0.001, 0.01, 0.3])
def test_the_centralised_regression_is_that_of_scikit_learn(l2):
    from sklearn.linear_model import LogisticRegression as Reference

    reference = Reference(C=1 / (l2 * len(Y)), tol=1e-10, max_iter=10_000).fit(X, Y)
    ours = fit_centralised(X, Y, l2=l2)
    np.testing.assert_allclose(ours["weight"], reference.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours["bias"], reference.intercept_, rtol=1e-4, atol=1e-5)


def test_the_centralised_regression_converges_on_separable_rows_far_from_the_origin():
    x = np.array([[50], [51], [52], [53]], dtype=np.float32)
    y = np.array([0, 0, 1, 1], dtype=np.float32)
    fitted = fit_centralised(x, y, l2=1e-4)
    assert LogisticRegression(1).evaluate(fitted, x, y).correct == 4


def test_the_proximal_term_holds_the_model_at_its_start():
    start = arrays([1, 1, 1, 1], 1)
    distances = [
        float(
            np.linalg.norm(
                flat(MODEL.train_local(start, X, Y, **SETTINGS, proximal_mu=mu)[0]) - flat(start)
            )
        )
        for mu in (0.0, 0.5, 3.0)
    ]
    assert distances[0] > 1.5 * distances[1] > 1.5 * 1.5 * distances[2] > 0


def test_metrics_are_those_of_the_definition():
    x = np.array([[2], [-1], [0.5]], dtype=np.float32)
    y = np.array([1, 1, 0], dtype=np.float32)
    metrics = LogisticRegression(1).evaluate(arrays([2], -0.5), x, y)
    probability = 1 / (1 + np.exp(-(2 * x[:, 0] - 0.5)))
    loss = -np.log([probability[0], probability[1], 1 - probability[2]])
    assert (metrics.correct, metrics.rows) == (1, 3)
    assert metrics.accuracy == pytest.approx(1 / 3)
    assert metrics.loss_sum == pytest.approx(loss.sum())
    assert metrics.loss == pytest.approx(loss.mean())


@given(scale=st.floats(0, 1e6))
def test_probabilities_and_losses_stay_finite_for_any_logit(scale):
    x = np.array([[1], [-1]], dtype=np.float32)
    model = arrays([scale], 0)
    probability = LogisticRegression(1).predict_probability(model, x)
    assert probability.tolist() == pytest.approx(
        [1 / (1 + np.exp(-scale)), 1 - 1 / (1 + np.exp(-scale))]
    )
    metrics = LogisticRegression(1).evaluate(model, x, np.array([0, 1], dtype=np.float32))
    assert metrics.loss_sum == pytest.approx(2 * np.logaddexp(0, scale))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"l2": -0.1}, "l2 is -0.1"),
        ({"proximal_mu": -1.0}, "proximal_mu is -1.0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_by_name(change, says):
    with pytest.raises(ConfigError, match=says):
        MODEL.train_local(MODEL.initial(0), X, Y, **{**SETTINGS, **change})


@pytest.mark.parametrize(
    ("model", "x", "y", "says"),
    [
        ({"weight": np.zeros((1, 4), np.float32)}, X, Y, "has the arrays"),
        (arrays([0, 0, 0], 0), X, Y, r"weight is float32 of shape \(1, 3\)"),
        ({**MODEL.initial(0), "bias": np.zeros(1)}, X, Y, "bias is float64"),
        (arrays([0, 0, np.inf, 0], 0), X, Y, "weight holds NaN or infinity"),
        (MODEL.initial(0), X[:, :3], Y, r"features have shape \(60, 3\)"),
        (MODEL.initial(0), X[:0], Y[:0], "no rows"),
        (MODEL.initial(0), np.where(X[7, 2] == X, np.nan, X), Y, "Row 7, feature 2 is nan"),
        (MODEL.initial(0), X, Y[:59], r"labels have shape \(59,\)"),
        (MODEL.initial(0), X, np.where(np.arange(60) == 9, 2, Y), "Row 9 has the label 2"),
    ],
)
def test_bad_arrays_and_rows_are_refused_before_training_and_evaluation(model, x, y, says):
    with pytest.raises(DataError, match=says):
        MODEL.train_local(model, x, y, **SETTINGS)
    with pytest.raises(DataError, match=says):
        MODEL.evaluate(model, x, y)


def test_diverged_training_is_an_error_and_not_a_model():
    with pytest.raises(DataError, match="diverged with learning rate 1e\\+30"):
        MODEL.train_local(MODEL.initial(0), X, Y, **{**SETTINGS, "lr": 1e30})


def test_the_centralised_regression_refuses_what_has_no_solution():
    with pytest.raises(DataError, match="All 60 labels are 1"):
        fit_centralised(X, np.ones(60, dtype=np.float32))
    with pytest.raises(ConfigError, match="l2 is 0"):
        fit_centralised(X, Y, l2=0.0)


def test_the_defaults_are_hyperparameters_that_training_accepts():
    trained, _ = MODEL.train_local(
        MODEL.initial(0),
        X,
        Y,
        epochs=DEFAULTS.epochs,
        lr=DEFAULTS.lr,
        batch_size=DEFAULTS.batch_size,
        l2=DEFAULTS.l2,
        proximal_mu=DEFAULTS.proximal_mu,
        seed=0,
    )
    assert np.abs(flat(trained)).max() < DEFAULTS.clip
