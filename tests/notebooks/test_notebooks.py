"""The notebooks are clean, and run from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
STORY = ["01_train.ipynb", "02_verify_rounds.ipynb", "03_private_inference.ipynb"]


def test_there_are_notebooks():
    assert [file.name for file in NOTEBOOKS] == STORY


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_a_notebook_holds_no_outputs_and_no_secrets(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert not re.search(r"[0-9a-f]{64}|PRIVATE KEY|/home/|/tmp/", file.read_text())


@pytest.mark.notebook
def test_training_verifying_and_predicting_run_from_top_to_bottom(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("TWOPM_HOME", str(tmp_path / "home"))
    printed = {}
    for name in STORY:
        notebook = nbformat.read(FOLDER / name, as_version=4)
        done = NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
        outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
        printed[name] = "".join(output.get("text", "") for output in outputs)
        assert any("image/png" in output.get("data", {}) for output in outputs), name
    assert "still encrypted" in printed["01_train.ipynb"]
    assert "first failure: None" in printed["02_verify_rounds.ipynb"]
    assert "exit 0" in printed["02_verify_rounds.ipynb"]
    caught = re.findall(r"^step (\d+): ", printed["02_verify_rounds.ipynb"], re.MULTILINE)
    assert [int(step) for step in caught] == [5, 7]
    predicted = printed["03_private_inference.ipynb"]
    caught = re.findall(r"^step (\d+): ", predicted, re.MULTILINE)
    assert [int(step) for step in caught] == [4, 2, 6]
    statuses = re.findall(r"^exit (\d) · anchored: (\w+)", predicted, re.MULTILINE)
    assert statuses == [("2", "False"), ("0", "True")]
    assert "provable fault: True" in predicted
