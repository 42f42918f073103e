"""docs/protocol.md names every digest, type and record field that the code uses."""

import re
from pathlib import Path

import pytest

from twopm_flower.records import bundle, inference, manifest, roster, statements, terms
from twopm_flower.records.fields import Record
from twopm_flower.verify import STEPS
from twopm_flower.verify.receipt import RECEIPT_STEPS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
RECORDS = [
    kind
    for module in (bundle, inference, manifest, roster, terms)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.__name__
]
# Handed from operator to operator, and no part of a run.
OUT_OF_BAND = {"NodeCard", "JoinRequest", "DealtKey"}


def test_every_domain_tag_of_the_code_stands_in_the_table():
    used = set()
    for path in (ROOT / "twopm_flower").rglob("*.py"):
        used |= set(re.findall(r"tagged(?:_digest)?\(\s*\"([^\"]+)\"", path.read_text()))
        used |= set(re.findall(r"_digest\(\"([a-z-]+/v\d+)\"", path.read_text()))
    assert used
    documented = set(re.findall(r"^\| `([a-z/-]+/v\d+)` \|", TEXT, re.MULTILINE))
    assert used == documented


def test_every_signed_type_is_spelt_out():
    kinds = [
        kind
        for kind in (*vars(statements).values(), *vars(inference).values())
        if isinstance(kind, type)
        and issubclass(kind, statements.Statement)
        and kind is not statements.Statement
    ]
    assert len(kinds) >= 13
    for kind in kinds:
        members = ",".join(f"{solidity} {name}" for name, solidity in kind.TYPES.values())
        assert f"\n{kind.__name__}({members})\n" in TEXT


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_field_of_a_record_is_named(kind):
    if kind.__name__ not in OUT_OF_BAND:
        missing = [
            field for field in kind.model_fields if not re.search(rf"[`\"]{field}[`\"]", TEXT)
        ]
        assert not missing


@pytest.mark.parametrize(
    ("heading", "steps"),
    [("## Verification", STEPS), ("## Verification of a receipt", RECEIPT_STEPS)],
)
def test_every_step_of_the_verifier_is_described(heading, steps):
    section = TEXT.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    numbers = re.findall(r"^(\d+)\. ", section, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(steps) + 1)]


def test_every_vector_file_is_referred_to():
    named = set(re.findall(r"`([a-z_]+)\.json`", TEXT))
    assert named == {path.stem for path in Path(__file__).parent.glob("*.json")}


def test_links_within_the_page_lead_somewhere():
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
