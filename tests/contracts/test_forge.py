"""Forge's fuzz and invariant tests of the contracts, and that they would notice a change."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).parents[2] / "contracts"
MODULES = CONTRACTS / "node_modules"
FORGE = next(iter(sorted(MODULES.glob("@foundry-rs/forge-*/bin/forge"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FORGE is None or shutil.which("node") is None,
        reason="forge is missing: npm install --prefix contracts --no-save @foundry-rs/forge@1.7.1",
    ),
]


def forge_test(folder):
    return subprocess.run(
        [FORGE, "test"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def test_the_contracts_do_what_the_model_says_whatever_is_tried():
    done = forge_test(CONTRACTS)
    assert done.returncode == 0, done.stdout + done.stderr
    written = sum(
        len(re.findall(r"^    function (?:test|invariant)", path.read_text(), re.MULTILINE))
        for path in (CONTRACTS / "test").glob("*.t.sol")
    )
    assert f"{written} tests passed, 0 failed, 0 skipped" in done.stdout


def test_the_sources_are_formatted():
    done = subprocess.run(
        [FORGE, "fmt", "--check"], cwd=CONTRACTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run `forge fmt` in contracts/\n{done.stdout}"


CHANGES = {
    "a finalised task revives": (
        "        task.state = State.Finalised;\n",
        "        task.state = State.Open;\n",
    ),
    "anybody moves a task": ("coordinator != msg.sender", "msg.sender == address(0)"),
    "a signer counts twice": ("signer <= previous", "signer < previous"),
    "outsiders sign models": ("samplesOf[taskId][signer] == 0", "signer == address(0)"),
    "a round is recorded twice": ("attempt > task.lastAttempt", "attempt >= task.lastAttempt"),
    "a member replaces its samples": ("samplesOf[taskId][node] != 0", "samples == 0"),
}


@pytest.mark.full
@pytest.mark.parametrize("change", CHANGES)
def test_the_model_notices_when(change, tmp_path):
    before, after = CHANGES[change]
    for name in ("src", "test"):
        shutil.copytree(CONTRACTS / name, tmp_path / name)
    for name in ("foundry.toml", "solc.mjs", "package.json"):
        shutil.copy2(CONTRACTS / name, tmp_path / name)
    (tmp_path / "node_modules").mkdir()
    for module in MODULES.iterdir():
        if module.name != ".cache":
            (tmp_path / "node_modules" / module.name).symlink_to(module)
    source = tmp_path / "src" / "TaskRegistry.sol"
    text = source.read_text(encoding="utf-8")
    assert text.count(before) == 1
    source.write_text(text.replace(before, after), encoding="utf-8")
    done = forge_test(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Compiler run successful" in done.stdout
