"""docs/contracts.md says what the contracts are, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from gas_measurement import SNAPSHOT
from test_task_states import ALLOWED, FUNCTIONS

from twopm_flower.chain.contracts import CONTRACTS, load_contract

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
ABI = {name: load_contract(name).abi for name in CONTRACTS}
SHORT = {
    "NodeRegistry": "nodes",
    "TaskRegistry": "tasks",
    "DataRegistry": "data",
    "ReceiptRegistry": "receipts",
}


def section(heading):
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading):
    """Return the cells of all tables of a section, without their heads."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row
        for place, row in enumerate(cells)
        if not row[0].startswith("---")
        and (place + 1 == len(cells) or not cells[place + 1][0].startswith("---"))
    ]


def declared(kind):
    return {
        (name, entry["name"]): entry
        for name in CONTRACTS
        for entry in ABI[name]
        if entry["type"] == kind
    }


def test_the_gas_is_that_of_the_snapshot():
    gas = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["gas"]
    assert rows("What it costs") == [[what, f"{amount:,}"] for what, amount in gas.items()]
    for what, nodes in (("two together", 2), ("ten together", 10), ("alone", 1)):
        assert f"{-(-gas[f'join {what}'] // nodes):,}" in section("What it costs").split("|")[-1]


def test_every_event_is_listed_with_its_fields():
    expected = {
        f"`{event}`": ", ".join(
            f"**{field['name']}**" if field["indexed"] else field["name"]
            for field in entry["inputs"]
        )
        for (_, event), entry in declared("event").items()
        if event != "EIP712DomainChanged"
    }
    assert dict(rows("Events")) == expected


def test_every_error_is_listed_with_its_contracts():
    expected = {}
    for name, error in declared("error"):
        expected.setdefault(f"`{error}`", set()).add(SHORT[name])
    assert {row[0]: set(row[1].split(", ")) for row in rows("Errors")} == expected
    assert all(row[2] for row in rows("Errors"))


def test_every_function_that_writes_is_listed():
    writing = {
        f"`{entry['name']}`"
        for entry in declared("function").values()
        if entry["stateMutability"] != "view"
    }
    assert {row[0] for row in rows("Who may do what")} == writing
    assert "payable" not in {entry["stateMutability"] for entry in declared("function").values()}


def test_the_table_of_states_is_the_one_that_is_tested():
    table = {row[0].lower(): row[1:] for row in rows("The life of a task")}
    for state, allowed in ALLOWED.items():
        refusal = "UnknownTask" if state == "unknown" else "WrongState"
        cells = table["never created" if state == "unknown" else state.split()[0]]
        expected = ["yes" if function in allowed else refusal for function in FUNCTIONS]
        assert cells == expected


def test_the_slots_of_a_task_are_those_of_the_layout():
    artifact = ROOT / "twopm_flower" / "chain" / "artifacts" / "TaskRegistry.json"
    types = json.loads(artifact.read_text(encoding="utf-8"))["storageLayout"]["types"]
    slots = {}
    for member in types["t_struct(Task)_storage"]["members"]:
        slots.setdefault(member["slot"], []).append(member["label"])
    told = {row[0]: row[1].replace(" xor termsDigest", "").split(", ") for row in rows("Storage")}
    assert told == slots


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_type_that_is_signed_is_listed(name):
    source = (ROOT / "contracts" / "src" / f"{name}.sol").read_text(encoding="utf-8")
    for kind in re.findall(r'keccak256\(\s*("[^"]+")\s*\)', source):
        assert f"`{kind[1:-1]}`" in PAGE


def test_every_finding_of_slither_that_is_waved_through_is_answered():
    waved = {
        name
        for path in (ROOT / "contracts" / "src").glob("*.sol")
        for name in re.findall(r"slither-disable\S* (\S+)", path.read_text(encoding="utf-8"))
    }
    answers = section("How they are checked").partition("Findings of slither")[2]
    answered = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\|[^|]*", answers, re.M))))
    assert answered == waved | {"pragma", "solc-version"}
