"""The stored vectors are the ones that this package computes."""

import json
from pathlib import Path

import pytest
from bundle_vectors import RUNS
from vector_cases import CASES

from twopm_flower.verify import load_bundle, verify_bundle

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_code_gives_the_stored_vectors(name):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    made = json.loads(json.dumps(CASES[name]()))
    assert made == stored["vectors"], "the protocol changed: see docs/protocol.md, Versions"


def test_every_stored_file_is_recomputed_or_tested_elsewhere():
    elsewhere = {"openzeppelin_merkle", *RUNS}
    assert {path.stem for path in FOLDER.glob("*.json")} == {*CASES, *elsewhere}


@pytest.mark.parametrize(
    ("name", "level"), [("run_bundle", "fingerprints"), ("one_time_run_bundle", "re-executed")]
)
def test_the_stored_bundle_of_a_whole_run_verifies_as_long_as_the_format_stands(name, level):
    report = verify_bundle(load_bundle(FOLDER / f"{name}.json"), chain=None)
    assert report.first_failure is None
    assert (report.exit_code, report.level, report.rounds) == (2, level, 1)
