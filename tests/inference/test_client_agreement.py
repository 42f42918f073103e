"""Encrypted and plain predictions agree, on the real students and for every class."""

import httpx
import numpy as np
import pytest
from lying_service import Service
from sklearn.linear_model import LogisticRegression

from twopm_flower.datasets import FeatureEncoder, load_students
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.models.centralised import fit_centralised
from twopm_flower.models.logistic_regression import LogisticRegression as OurModel

LEVELS = ("fail", "sufficient", "satisfactory", "good", "excellent")
LOWEST_GRADES = (10, 12, 14, 16)
"""Grades from which the levels after the first begin (Cortez and Silva, 2008, table 2)."""


def predictions(service, students, home, preset=None):
    with PrivateInferenceClient(
        "http://127.0.0.1:1",
        home=home,
        policy=ClientPolicy(retries=0, preset=preset, keep_receipts=False),
        transport=httpx.MockTransport(service.handle),
    ) as client:
        return client.predict(students)


@pytest.mark.parametrize(
    ("subject", "setup", "target"),
    [
        ("mat", "A", "pass"),
        ("mat", "C", "improvement"),
        ("por", "A", "pass"),
        ("por", "B", "improvement"),
    ],
)
def test_every_student_gets_the_probability_that_plain_prediction_gives(
    student_data, tmp_path, subject, setup, target
):
    students = load_students(subject, student_data).frame
    encoder = FeatureEncoder(setup, target)
    arrays = fit_centralised(*encoder.encode(students))
    found = predictions(
        Service(arrays["weight"], arrays["bias"], setup=setup, target=target), students, tmp_path
    )
    plain = OurModel(encoder.n_features).predict_probability(
        arrays, encoder.encode_features(students)
    )
    assert np.abs(found["probability"] - plain).max() < 1e-3
    sure = np.abs(plain - 0.5) > 1e-3
    assert ((found["class"] == "pass")[sure] == (plain > 0.5)[sure]).all()


@pytest.mark.parametrize(("subject", "policy"), [("mat", "public"), ("por", "secret")])
def test_every_one_of_five_levels_gets_the_probability_that_scikit_learn_gives(
    student_data, tmp_path, subject, policy
):
    students = load_students(subject, student_data).frame
    features = FeatureEncoder("A").encode_features(students)
    levels = np.digitize(students["G3"], LOWEST_GRADES)
    reference = LogisticRegression(max_iter=5000).fit(features, levels)
    service = Service(
        reference.coef_.astype(np.float32),
        reference.intercept_.astype(np.float32),
        classes=LEVELS,
        policy=policy,
    )
    found = predictions(service, students, tmp_path)
    plain = reference.predict_proba(features)
    encrypted = found[[f"probability_{level}" for level in LEVELS]].to_numpy()
    assert np.abs(encrypted - plain).max() < 1e-3
    assert set(found["class"]) == set(LEVELS)
    best = np.array(LEVELS)[np.argmax(plain, axis=1)]
    ordered = np.sort(plain, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > 2e-3
    assert (found["class"].to_numpy() == best)[sure].all()
    one = predictions(service, students.head(1), tmp_path)
    assert np.abs(one.iloc[:, :5].to_numpy(dtype=float) - plain[:1]).max() < 1e-3
