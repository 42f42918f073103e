"""The notebooks are clean, and run from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_there_are_notebooks():
    assert {"01_train.ipynb", "02_verify_rounds.ipynb"} <= {file.name for file in NOTEBOOKS}


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
def test_training_and_then_verifying_run_from_top_to_bottom(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("TWOPM_HOME", str(tmp_path / "home"))
    printed = {}
    for name in ("01_train.ipynb", "02_verify_rounds.ipynb"):
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
