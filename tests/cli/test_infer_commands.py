"""A finished run's model served, asked and proved by commands, as people would."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pandas as pd
import pytest

from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students

STUDENTS = synthetic_students("mat", 6)
PATIENCE_S = 90


@pytest.fixture
def model(finished, tmp_path, twopm):
    """The model of the run, as a node exports it."""
    path = tmp_path / "model.safetensors"
    assert twopm("model", "export", "--out", path, "--home", finished.homes[0]).status == 0
    return path


@contextmanager
def serving(*arguments, log):
    """Run ``twopm infer serve``; yields what it printed and the process."""
    command = [sys.executable, "-P", "-m", "twopm_flower.cli", "infer", "serve", "--json"]
    command += ["--port", "0", "--workers", "1", *map(str, arguments)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ}, text=True
        ) as process,
    ):
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, log.read_text()
            said += line
        try:
            yield json.loads(said), process
        finally:
            process.kill()


def ended(process):
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S)


def test_a_service_is_started_asked_proved_and_ended(finished, own_copy, model, tmp_path, twopm):
    csv, out, log = tmp_path / "students.csv", tmp_path / "out.csv", tmp_path / "log"
    csv.write_bytes(format_students(STUDENTS))
    client = ("--home", tmp_path / "requester")
    slowly = ("--home", own_copy, "--model", model, "--anchor-every", "3600")
    with serving(*slowly, log=log) as (told, process):
        url = ("--url", told["url"])
        asked = twopm("infer", "predict", "--csv", csv, "--out", out, *url, *client)
        assert asked.status == 0, asked.err
        assert len(pd.read_csv(out)) == len(STUDENTS)
        (listed,) = twopm("infer", "receipts", "--json", *client).json["receipts"]
        verify = ("verify", "--receipt", listed["file"], "--model", model, "--home", own_copy)
        assert twopm(*verify).status == 2
        # What is left is anchored before it ends.
        assert ended(process) == 0
    assert "INFO" not in log.read_text().replace("INFO twopm_flower", "")
    with serving(*slowly, log=log) as (told, process):
        url = ("--url", told["url"])
        fetched = twopm("infer", "receipts", "--fetch", *url, *client)
        assert fetched.status == 0, fetched.err
        proved = twopm(*verify)
        assert proved.status == 0, proved.out + proved.err
        assert ended(process) == 0


def refusal(outcome):
    assert outcome.status == 1
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    return " ".join(outcome.err.split())


def test_what_cannot_be_served_is_refused_before_anything_listens(
    finished, own_copy, model, tmp_path, twopm
):
    def serve(*arguments):
        return refusal(twopm("infer", "serve", "--home", own_copy, "--port", "0", *arguments))

    assert "--insecure" in serve("--model", model, "--host", "0.0.0.0")
    assert "1000/day" in serve("--model", model, "--query-budget", "1000")
    assert "'fortnight'" in serve("--model", model, "--query-budget", "9/fortnight")
    assert "belong together" in serve("--model", model, "--tls-cert", model)
    assert "no file" in serve("--model", model, "--tls-cert", "a.pem", "--tls-key", "b.pem")
    assert "--query-budget" in serve(
        "--model", model, "--weights", "secret", "--allow", _allowed(tmp_path)
    )
    assert "--allow" in serve("--model", model, "--weights", "secret", "--query-budget", "5/week")
    missing = tmp_path / "missing.safetensors"
    assert "twopm model export" in serve("--model", missing)
    missing.write_bytes(b"no model")
    assert "no safetensors file" in serve("--model", missing)
    assert "EIP-55" in serve("--model", model, "--allow", _allowed(tmp_path, "0x" + "ab" * 20))


def _allowed(folder, address="0x" + "00" * 20):
    path = folder / "allowed.txt"
    path.write_text(f"{address}  # somebody\n")
    return path


def test_a_model_that_is_not_the_tasks_outcome_is_not_served(
    finished, own_copy, model, tmp_path, twopm
):
    from safetensors.numpy import load, save

    arrays = load(model.read_bytes())
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({name: array + 1 for name, array in arrays.items()}))
    said = refusal(twopm("infer", "serve", "--home", own_copy, "--model", other, "--port", "0"))
    assert finished.task_id in said.replace(" ", "")
    assert "twopm model export" in said
