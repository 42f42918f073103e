"""``twopm infer predict`` and ``twopm infer receipts``."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from lying_service import small_service
from scripted_server import scripted, speaks
from typer.testing import CliRunner

from twopm_flower.cli import infer_predict
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import ConfigError, DataError, InferenceMismatch

STUDENTS = synthetic_students("mat", 25)

app = typer.Typer()
app.command()(infer_predict.predict)
app.command()(infer_predict.receipts)


@pytest.fixture(scope="module")
def service():
    return small_service()


@pytest.fixture
def run(service, tmp_path):
    """Run a command against the service, in a home of the test's own; return what it prints."""
    csv = tmp_path / "students.csv"
    csv.write_bytes(format_students(STUDENTS))

    def run(verb, *arguments):
        if verb == "predict" and "--csv" not in arguments:
            arguments = ("--csv", str(csv), *arguments)
        with scripted(speaks(service.handle)) as (url, _):
            said = CliRunner().invoke(
                app, [verb, "--url", url, "--home", str(tmp_path / "home"), *arguments]
            )
        if said.exception is not None and not isinstance(said.exception, SystemExit):
            raise said.exception
        assert said.exit_code == 0, said.output
        return said.output

    return run


def probabilities(service):
    logits = service.encoder.encode_features(STUDENTS) @ service.weight.T + service.bias
    return 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))


def test_predictions_are_shown_and_written_to_a_file(run, service, tmp_path):
    said = run("predict", "--out", str(tmp_path / "out.csv"))
    assert "and 5 more" in said
    written = pd.read_csv(tmp_path / "out.csv", index_col="row")
    np.testing.assert_allclose(written["probability"], probabilities(service), atol=1e-3)
    assert list(written.columns) == ["probability", "class", "receipt"]
    for row in written.head(20).itertuples():
        assert f"{row.probability:.3f}" in said


def test_predictions_are_json_on_demand_and_nothing_else(run, service):
    said = json.loads(run("predict", "--json"))
    assert said["model_digest"] == service.card.model_digest
    found = [entry["probability"] for entry in said["predictions"]]
    np.testing.assert_allclose(found, probabilities(service), atol=1e-3)
    assert {"row", "class", "receipt"} < said["predictions"][0].keys()


def test_a_file_without_the_final_grade_is_predicted_for(run, service, tmp_path):
    csv = tmp_path / "ungraded.csv"
    STUDENTS.drop(columns=["G3"]).to_csv(csv, sep=";", index=False)
    said = json.loads(run("predict", "--csv", str(csv), "--json"))
    assert len(said["predictions"]) == 25
    STUDENTS.drop(columns=["G2", "G3"]).to_csv(csv, sep=";", index=False)
    with pytest.raises(DataError, match="no column G2"):
        run("predict", "--csv", str(csv))


def test_receipts_are_listed_and_say_whether_they_are_anchored(run, service, tmp_path):
    assert "no receipts yet" in run("receipts")
    run("predict")
    (listed,) = json.loads(run("receipts", "--json"))["receipts"]
    assert listed["anchoring"] is None
    assert (tmp_path / "home/inference/receipts").joinpath(f"{listed['receipt'][2:]}.json").exists()
    said = run("receipts", "--fetch")
    assert "not yet" in said
    assert f"twopm verify --receipt {listed['file']}" in said.replace("\n", "")


def test_a_price_is_paid_only_if_it_was_agreed_to(run, service, monkeypatch):
    monkeypatch.setitem(service.card_changes, "price", 7)
    with pytest.raises(InferenceMismatch, match="7 wei"):
        run("predict")
    run("predict", "--max-price", "7")
    # To ask for anchorings costs nothing.
    assert "7 wei" in run("receipts", "--fetch")


def test_the_account_of_the_service_and_the_task_can_be_pinned(run, service):
    run("predict", "--service", service.card.service, "--task", service.card.task_id)
    with pytest.raises(InferenceMismatch, match="model of task"):
        run("predict", "--task", service.card.model_digest)
    with pytest.raises(InferenceMismatch, match="signs as"):
        run("predict", "--service", service.card.issuer)


def test_files_that_cannot_be_used_are_named(run, tmp_path):
    for name in ("missing.csv", "."):
        with pytest.raises(DataError, match="cannot be read"):
            run("predict", "--csv", str(tmp_path / name))
    with pytest.raises(ConfigError, match="cannot be written"):
        run("predict", "--out", str(tmp_path / "no-such-folder" / "out.csv"))
    with pytest.raises(ConfigError, match=r"chain\.toml"):
        run("predict", "--chain", str(tmp_path / "chain.toml"))
