"""Rounds and updates as data frames, and the plot."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from twopm_flower.inspect import (
    is_synthetic,
    load_bundle,
    plot_rounds,
    rounds,
    update_bytes,
    updates,
)
from twopm_flower.records.manifest import Exclusion
from twopm_flower.verify.checklist import verify_bundle


@pytest.fixture
def bundle(finished):
    return load_bundle(finished.bundle)


def texts(figure):
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [figure.get_suptitle(), *labels, *(axes.get_title("left") for axes in figure.axes)]


def test_a_row_per_round_agrees_with_the_verifier(bundle):
    table = rounds(bundle)
    assert list(table["round"]) == [1, 2]
    metrics = {entry.model_round: entry for entry in verify_bundle(bundle, chain=None).metrics}
    for row in table.itertuples():
        sums = metrics[row.round].evaluation
        assert row.accuracy == pytest.approx(sums["correct"] / sums["num-examples"])
        assert row.loss == pytest.approx(sums["loss"] / sums["num-examples"])
        trained = metrics[row.round].training
        assert row.train_accuracy == pytest.approx(trained["correct"] / row.samples)
        assert row.transaction == bundle.rounds[row.round - 1].record.transaction_hash
    assert table["gas"].gt(0).all()


def test_an_evaluation_that_cannot_be_unmasked_is_missing_and_not_noise(bundle):
    table = rounds(bundle.model_copy(update={"closing": bundle.closing[1:]}))
    assert not math.isnan(table.loc[0, "accuracy"])
    assert math.isnan(table.loc[1, "accuracy"])
    assert math.isnan(table.loc[1, "loss"])


def test_a_round_that_is_not_recorded_has_no_gas(bundle):
    bare = tuple(entry.model_copy(update={"record": None}) for entry in bundle.rounds)
    table = rounds(bundle.model_copy(update={"rounds": bare}))
    assert table["gas"].isna().all()
    assert table["transaction"].isna().all()


def second_attempt(bundle):
    entry = bundle.rounds[0]
    manifest = entry.manifest.model_copy(update={"attempt": 2})
    metrics = entry.metrics.model_copy(update={"sums": dict.fromkeys(entry.metrics.sums, 0)})
    changed = entry.model_copy(update={"manifest": manifest, "metrics": metrics})
    return bundle.model_copy(update={"rounds": (changed, *bundle.rounds[1:])})


def test_zeros_that_are_sent_after_the_first_attempt_are_no_accuracy(bundle):
    table = rounds(second_attempt(bundle))
    assert table.loc[0, ["train_accuracy", "train_loss"]].isna().all()
    assert table.loc[1, ["train_accuracy", "train_loss"]].notna().all()


def test_a_round_of_two_attempts_is_shown_without_training_metrics(bundle, twopm, tmp_path):
    file = tmp_path / "second.json"
    file.write_bytes(second_attempt(bundle).to_bytes())
    first = twopm("show", 1, file, "--home", tmp_path / "home").out
    assert "– (nodes send no training metrics" in first
    assert "accuracy 0" not in first
    table = rounds(bundle)
    second = twopm("show", 2, file, "--home", tmp_path / "home").out
    assert f"accuracy {table.loc[1, 'train_accuracy']:.1%}, loss " in second
    value = twopm("show", 1, file, "--home", tmp_path / "home", "--json").json
    assert value["train_accuracy"] is None


def test_a_row_per_update_says_who_was_left_out(bundle):
    table = updates(bundle)
    assert len(table) == 6
    assert set(table["status"]) == {"added"}
    entry = bundle.rounds[1]
    gone = entry.manifest.survivors[0]
    manifest = entry.manifest.model_copy(
        update={
            "survivors": entry.manifest.survivors[1:],
            "exclusions": (Exclusion(node=gone.node, reason="late", detail="60 s"),),
        }
    )
    changed = bundle.model_copy(
        update={"rounds": (bundle.rounds[0], entry.model_copy(update={"manifest": manifest}))}
    )
    table = updates(changed)
    left_out = table[table["status"] == "late"]
    assert list(left_out["node"]) == [gone.node]
    assert rounds(changed).loc[1, "excluded"] == 1


def test_the_plot_shows_both_curves_and_says_synthetic(bundle):
    assert is_synthetic(bundle.terms)
    figure = plot_rounds(bundle)
    table = rounds(bundle)
    for axes, column in zip(figure.axes, ("accuracy", "loss"), strict=True):
        assert list(axes.lines[0].get_ydata()) == list(table[column])
    assert "SYNTHETIC" in texts(figure)[0]
    assert f"{table.loc[1, 'accuracy']:.1%}" in texts(figure)


def test_the_plot_of_real_data_does_not_say_synthetic_and_plaintext_says_so(bundle):
    dataset = {**bundle.terms.dataset, "synthetic": False, "label": "UCI student-mat"}
    terms = bundle.terms.model_copy(
        update={"dataset": dataset, "trust_mode": "plaintext", "title": "grades"}
    )
    title = texts(plot_rounds(bundle.model_copy(update={"terms": terms})))[0]
    assert "SYNTHETIC" not in title
    assert "PLAINTEXT" in title


def test_an_update_is_smaller_than_a_kilobyte(bundle):
    assert 200 < update_bytes(bundle.terms) < 1000


def test_frames_are_frames(bundle):
    assert isinstance(rounds(bundle), pd.DataFrame)
    assert isinstance(updates(bundle), pd.DataFrame)


def test_inspecting_needs_no_flower_and_no_torch(finished):
    code = (
        "import sys\n"
        "from twopm_flower.inspect import load_bundle, rounds\n"
        f"rounds(load_bundle({str(finished.bundle)!r}))\n"
        "print({'flwr', 'torch', 'web3', 'tenseal', 'matplotlib'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
