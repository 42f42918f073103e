"""Rotating a key: a new task goes on from the model that an old one ended with."""

import pytest

from twopm_flower.federated.home import NodeHome


def create(twopm, home, folder, *more):
    return twopm(
        "task", "create", "--app", folder / "app", "--out", folder / "invitation.json",
        "--synthetic", "--home", home, *more,
    )  # fmt: skip


@pytest.fixture
def exported(twopm, finished, tmp_path):
    file = tmp_path / "model.safetensors"
    done = twopm("model", "export", "--out", file, "--home", finished.homes[0], "--json")
    assert done.status == 0, done.err
    return file, done.json["digest"]


def test_a_task_starts_from_the_exported_model_and_prints_its_digest(
    twopm, own_copy, tmp_path, exported
):
    file, digest = exported
    made = create(twopm, own_copy, tmp_path, "--initial-model", file, "--json")
    assert made.status == 0, made.err
    assert made.json["initial_model"] == digest
    assert NodeHome(own_copy).task(made.json["task_id"]).terms.initial_model == digest
    shown = create(twopm, own_copy, tmp_path, "--initial-model", file, "--force")
    assert digest in shown.out.replace("\n", "")


def test_a_model_of_other_features_is_refused_and_no_task_is_made(
    twopm, own_copy, tmp_path, exported
):
    before = NodeHome(own_copy).task_ids()
    made = create(twopm, own_copy, tmp_path, "--initial-model", exported[0], "--setup", "C")
    assert made.status != 0
    assert "the app trains float32 of shape" in made.err.replace("\n", " ")
    assert NodeHome(own_copy).task_ids() == before
