"""``twopm verify --receipt`` and the files that it reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from receipt_stage import predict
from safetensors.numpy import save_file

from twopm_flower.cli import run

ALONE = """
import sys
from pathlib import Path
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.verify.receipt import verify_receipt
receipt, request, response = (Path(name).read_bytes() for name in sys.argv[1:4])
import numpy as np
arrays = {"weight": np.array([[0.5, -1.25, 2.0]], "f4"), "bias": np.array([0.125], "f4")}
file = ReceiptFile.from_bytes(receipt)
report = verify_receipt(file, request, response, chain=None, arrays=arrays)
heavy = {"flwr", "web3", "tenseal", "torch", "numba", "llvmlite", "eth", "pandas", "ray"}
heavy &= set(sys.modules)
print(report.exit_code, report.level, sorted(heavy))
"""


@pytest.fixture
def verify(capfd, tmp_path):
    def call(*arguments):
        home = tmp_path / "home"
        status = run(["verify", *map(str, arguments), "--offline", "--home", str(home)])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call


def stored(folder, prediction):
    """Write a receipt, its frames and the model, as a requester keeps them."""
    path = folder / "receipt.json"
    path.write_bytes(prediction.file.to_bytes())
    path.with_suffix(".request").write_bytes(prediction.request)
    path.with_suffix(".response").write_bytes(prediction.response)
    model = folder / "model.safetensors"
    save_file(prediction.arrays, model)
    return path, model


def test_a_receipt_and_its_model_are_verified_step_by_step(verify, tmp_path):
    path, model = stored(tmp_path, predict())
    status, out, _ = verify("--receipt", path, "--model", model)
    assert status == 2
    assert "no chain confirms it" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    status, out, _ = verify("--receipt", path, "--model", model, "--json")
    report = json.loads(out)
    assert (status, report["exit_code"], report["level"]) == (2, 2, "redone")
    ended = {step["number"]: step["status"] for step in report["steps"]}
    assert ended == dict.fromkeys((1, 2, 3, 4, 5, 6, 8), "passed") | {7: "skipped", 9: "skipped"}


def test_a_wrong_answer_is_called_a_provable_fault(verify, tmp_path):
    path, model = stored(tmp_path, predict(answered_by=predict().arrays["weight"] / 2))
    status, out, _ = verify("--receipt", path, "--model", model)
    assert status == 1
    assert "Step 6 does not hold" in out
    assert "its signature proves it" in " ".join(out.split())
    status, out, _ = verify("--receipt", path, "--model", model, "--json")
    assert json.loads(out)["fault"] is True
    assert verify("--receipt", path)[0] == 2


def test_frames_that_are_not_beside_the_receipt_are_not_checked(verify, tmp_path):
    path, _ = stored(tmp_path, predict())
    path.with_suffix(".request").unlink()
    path.with_suffix(".response").unlink()
    status, out, _ = verify("--receipt", path, "--json")
    report = json.loads(out)
    assert (status, report["level"]) == (2, "signed")
    path.with_suffix(".request").write_bytes(b"something else")
    status, out, _ = verify("--receipt", path, "--json")
    assert (status, json.loads(out)["first_failure"]) == (1, 4)


def test_files_of_other_kinds_are_named(verify, tmp_path):
    path, model = stored(tmp_path, predict())
    status, _, err = verify("--receipt", model)
    assert (status, "is no receipt" in err) == (1, True)
    status, _, err = verify("--receipt", path, "--model", path)
    assert (status, "is no safetensors file" in err) == (1, True)
    status, _, err = verify("--receipt", path, "--model", tmp_path / "missing")
    assert (status, "cannot be read" in err) == (1, True)
    status, _, err = verify("--receipt", tmp_path)
    assert (status, "cannot be read" in err) == (1, True)
    path.write_bytes(path.read_bytes().replace(b'"price":7', b'"price":7.5'))
    status, _, err = verify("--receipt", path)
    assert (status, "price" in err) == (1, True)


def test_a_run_and_a_receipt_are_verified_one_at_a_time(verify, tmp_path):
    path, model = stored(tmp_path, predict())
    assert verify(path, "--receipt", path)[0] == 1
    status, _, err = verify("--model", model)
    assert (status, "--receipt" in err) == (1, True)


def test_redoing_an_answer_loads_neither_flower_nor_web3_nor_any_kernel(tmp_path):
    path, _ = stored(tmp_path, predict())
    files = (path, path.with_suffix(".request"), path.with_suffix(".response"))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, files)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "2 redone []"
