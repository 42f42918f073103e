"""Federated against centralised regression on the student data, as the defaults promise."""

import numpy as np
import pytest
from real_students import real_students

from twopm_flower.datasets import FeatureEncoder, partition, pool, split_holdout
from twopm_flower.models import DEFAULTS, LogisticRegression, fit_centralised

NODES = 3
SPLITS = 20


def federate(x, y, trains, seed):
    """Return the model after the default rounds, and each round's largest update."""
    model = LogisticRegression(x.shape[1])
    arrays, largest = model.initial(0), []
    shares = np.array([len(train) for train in trains]) / sum(len(train) for train in trains)
    for round_number in range(DEFAULTS.rounds):
        updates = []
        for node, train in enumerate(trains):
            trained, _ = model.train_local(
                arrays,
                x[train],
                y[train],
                epochs=DEFAULTS.epochs,
                lr=DEFAULTS.lr,
                batch_size=DEFAULTS.batch_size,
                l2=DEFAULTS.l2,
                proximal_mu=DEFAULTS.proximal_mu,
                seed=1000 * seed + 10 * round_number + node,
            )
            updates.append({name: trained[name] - arrays[name] for name in arrays})
        largest.append(max(float(np.abs(u[name]).max()) for u in updates for name in u))
        for name in arrays:
            mean = sum(share * u[name] for share, u in zip(shares, updates, strict=True))
            arrays[name] = (arrays[name] + mean).astype(np.float32)
    return arrays, largest


@pytest.mark.parametrize(
    ("subject", "setup", "target"),
    [
        ("mat", "A", "pass"),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("mat", "B", "pass"),
                ("mat", "C", "pass"),
                ("por", "A", "pass"),
                ("por", "B", "pass"),
                ("por", "C", "pass"),
                ("mat", "A", "improvement"),
                ("por", "A", "improvement"),
            ]
        ],
    ],
)
def test_five_federated_rounds_come_within_a_point_of_the_centralised_regression(
    subject, setup, target
):
    table = real_students(subject)
    x, y = FeatureEncoder(setup, target).encode(table.frame)
    model = LogisticRegression(x.shape[1])
    gaps = []
    for seed in range(SPLITS):
        splits = [
            split_holdout(part, seed=seed) for part in partition(table.frame, NODES, seed=seed)
        ]
        arrays, largest = federate(x, y, [split.train for split in splits], seed)
        assert max(largest) < DEFAULTS.clip
        pooled = pool(splits)
        central = fit_centralised(x[pooled.train], y[pooled.train])
        held_out = x[pooled.held_out], y[pooled.held_out]
        gaps.append(
            model.evaluate(central, *held_out).accuracy - model.evaluate(arrays, *held_out).accuracy
        )
    assert abs(np.mean(gaps)) <= 0.01


@pytest.mark.parametrize(
    ("subject", "setup", "percent"),
    [
        ("mat", "A", 90.4),
        ("mat", "B", 82.5),
        ("mat", "C", 68.8),
        ("por", "A", 92.2),
        ("por", "B", 89.0),
        ("por", "C", 84.7),
    ],
)
def test_in_ten_fold_cross_validation_the_regression_reaches_the_known_accuracy(
    subject, setup, percent
):
    from sklearn.model_selection import StratifiedKFold

    x, y = FeatureEncoder(setup).encode(real_students(subject).frame)
    model = LogisticRegression(x.shape[1])
    accuracies = [
        model.evaluate(fit_centralised(x[train], y[train]), x[test], y[test]).accuracy
        for seed in range(2)
        for train, test in StratifiedKFold(10, shuffle=True, random_state=seed).split(x, y)
    ]
    assert 100 * np.mean(accuracies) == pytest.approx(percent, abs=2.0)
