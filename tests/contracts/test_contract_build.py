"""The compiled contracts that the package carries are those that the sources give."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

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
    carried = {path.name: path.read_bytes() for path in ARTIFACTS.iterdir()}
    assert built == carried


@pytest.mark.parametrize("name", ["NodeRegistry", "TaskRegistry"])
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
    progress = {slots[name] for name in ("rounds", "lastRound", "lastAttempt", "members", "state")}
    assert len(progress) == 1
    assert len(progress | {slots["head"], slots["coordinator"]}) == 3
