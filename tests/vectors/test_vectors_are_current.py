"""The stored vectors are the ones that this package computes."""

import json
from pathlib import Path

import pytest
from vector_cases import CASES

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_code_gives_the_stored_vectors(name):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    made = json.loads(json.dumps(CASES[name]()))
    assert made == stored["vectors"], "the protocol changed: see docs/protocol.md, Versions"


def test_every_stored_file_is_recomputed_or_said_to_be_foreign():
    foreign = {"openzeppelin_merkle"}
    assert {path.stem for path in FOLDER.glob("*.json")} == {*CASES, *foreign}
