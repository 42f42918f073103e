"""A task that starts from a model in a file: what is taken, what is refused, how it is told."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from twopm_flower.errors import ConfigError
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import load_initial_model
from twopm_flower.node.initial_model import read_initial_model
from twopm_flower.node.terms import TaskSettings, build_student_terms, read_run_config

LIKE = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
TRAINED = {
    "weight": np.array([[0.5, -2, 3]], np.float32),
    "bias": np.array([0.25], np.float32),
}


def write(folder: Path, arrays) -> Path:
    file = folder / "model.safetensors"
    save_file({name: np.asarray(array) for name, array in arrays.items()}, file)
    return file


def test_a_model_is_read_in_the_order_that_is_trained(tmp_path):
    read = read_initial_model(write(tmp_path, dict(reversed(TRAINED.items()))), LIKE)
    assert list(read) == ["weight", "bias"]
    for name, array in TRAINED.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"more": np.zeros(1, np.float32)}, r"arrays \['bias', 'more', 'weight'\]"),
        ({"bias": None}, r"has the arrays \['weight'\], the app trains \['bias', 'weight'\]"),
        ({"weight": np.zeros((3, 1), np.float32)}, r"shape \(3, 1\).*shape \(1, 3\)"),
        ({"weight": np.zeros((1, 3), np.float64)}, r"'weight'.*float64.*float32"),
        ({"bias": np.array([np.nan], np.float32)}, "not finite"),
        ({"bias": np.array([-np.inf], np.float32)}, "not finite"),
    ],
)
def test_another_kind_of_model_is_refused_with_what_is_wrong(tmp_path, changes, because):
    arrays = {n: a for n, a in {**TRAINED, **changes}.items() if a is not None}
    with pytest.raises(ConfigError, match=because):
        read_initial_model(write(tmp_path, arrays), LIKE)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 64, b"\x80\x04pickle"])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    file = tmp_path / "model.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="twopm model export"):
        read_initial_model(file, LIKE)


def test_the_terms_and_the_coordinators_home_have_the_model_that_the_task_starts_from(
    federate, tmp_path
):
    root = Path(__file__).parents[2]
    _, fresh = build_student_terms(
        read_run_config(root), TaskSettings(), app_bundle="0x" + "ab" * 32
    )
    model = {name: array + np.float32(0.5) for name, array in fresh.items()}
    federation = federate()
    invitation = federation.create(TaskSettings(initial_model=write(tmp_path, model)))
    plain = federation.create()
    assert invitation.terms.initial_model != plain.terms.initial_model
    kept = load_initial_model(NodeHome(federation.coordinator).task(invitation.task_id))
    assert list(kept) == list(model)
    for name, array in model.items():
        np.testing.assert_array_equal(kept[name], array)
