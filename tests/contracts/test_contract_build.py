"""The compiled contracts that the package carries are those that the sources give."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from twopm_flower.chain.contracts import CONTRACTS

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "contracts"
ARTIFACTS = ROOT / "twopm_flower" / "chain" / "artifacts"


def missing_tool() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    for package in ("solc", "@openzeppelin/contracts"):
        if not (SOURCES / "node_modules" / package).is_dir():
            return f"the npm package {package} is missing: run `npm ci` in contracts/"
    return None


def test_the_carried_artifacts_are_built_from_the_sources_byte_for_byte(tmp_path):
    reason = missing_tool()
    if reason is not None:
        pytest.skip(reason)
    subprocess.run(
        ["node", "build.mjs", str(tmp_path)], cwd=SOURCES, check=True, capture_output=True
    )
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    carried = {path.name: path.read_bytes() for path in ARTIFACTS.glob("*.json")}
    assert built == carried


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_compiler_is_the_pinned_one(name):
    artifact = json.loads((ARTIFACTS / f"{name}.json").read_text())
    pinned = json.loads((SOURCES / "package.json").read_text())["devDependencies"]["solc"]
    assert artifact["compiler"]["version"].startswith(f"{pinned}+")
    assert artifact["compiler"]["settings"]["evmVersion"] == "cancun"
    assert f"pragma solidity {pinned};" in (SOURCES / "src" / f"{name}.sol").read_text()


def test_the_locked_packages_name_no_registry():
    assert "resolved" not in (SOURCES / "package-lock.json").read_text()


def test_a_round_touches_three_storage_slots():
    """What recordRound reads and writes: head, progress and coordinator, one slot each."""
    layout = json.loads((ARTIFACTS / "TaskRegistry.json").read_text())["storageLayout"]
    members = layout["types"]["t_struct(Task)_storage"]["members"]
    slots = {member["label"]: member["slot"] for member in members}
    progress = {slots[name] for name in ("rounds", "lastRound", "lastAttempt")}
    caller = {slots[name] for name in ("coordinator", "state")}
    assert (len(progress), len(caller)) == (1, 1)
    assert len(progress | caller | {slots["head"]}) == 3


def test_joining_reads_and_writes_one_slot_beside_its_digests():
    layout = json.loads((ARTIFACTS / "TaskRegistry.json").read_text())["storageLayout"]
    members = layout["types"]["t_struct(Task)_storage"]["members"]
    slots = {member["label"]: member["slot"] for member in members}
    assert len({slots[name] for name in ("coordinator", "state", "members", "maxSamples")}) == 1


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_part_of_a_contract_is_documented(name):
    """NatSpec: a notice for all that is public, and a line for each parameter and result."""
    artifact = json.loads((ARTIFACTS / f"{name}.json").read_text())
    source = (SOURCES / "src" / f"{name}.sol").read_text()
    own = r"^    (function|event|error|constructor|struct)\b ?(\w*)[^{;]*"
    declared = list(re.finditer(own, source, re.MULTILINE))
    assert {match[2] for match in declared} >= {
        entry["name"]
        for entry in artifact["abi"]
        if entry["type"] in ("event", "error") and f" {entry['name']}(" in source
    }
    for match in declared:
        above = re.search(r"((?:^    ///.*\n)+)\Z", source[: match.start()], re.MULTILINE)
        assert above is not None, match[0]
        hidden = re.search(r"\b(private|internal)\b", match[0])
        assert ("@dev" if hidden else "@notice") in above[1], match[0]
        if hidden or match[1] == "struct":
            continue
        parameters, _, results = match[0].partition("returns")
        names = re.findall(r"(\w+)\s*(?=[,)])", parameters.partition("(")[2])
        assert re.findall(r"@param (\w+)", above[1]) == names, match[0]
        assert above[1].count("@return") == len(re.findall(r"[,(]\s*\w", results)), match[0]


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_value_that_anybody_can_read_is_documented(name):
    source = (SOURCES / "src" / f"{name}.sol").read_text()
    read = r"^    (?!function|///)[^\n;{]*?\bpublic\b[^;{]*;"
    values = list(re.finditer(read, source, re.MULTILINE))
    getters = {
        entry["name"]
        for entry in json.loads((ARTIFACTS / f"{name}.json").read_text())["abi"]
        if entry["type"] == "function" and f"function {entry['name']}(" not in source
    }
    assert len(values) == len(getters - {"eip712Domain"})
    for match in [*values, re.search(r"^contract ", source, re.MULTILINE)]:
        above = source[: match.start()].rstrip().splitlines()
        comment = [line for line in above[-4:] if line.strip().startswith("///")]
        assert any("@notice" in line for line in comment), match[0]
