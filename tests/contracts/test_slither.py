"""Slither finds nothing in the contracts that is not answered, and does find what is planted."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).parents[2] / "contracts"
PLANTED = Path(__file__).with_name("Planted.sol")
SLITHER = shutil.which("slither", path=f"{CONTRACTS}/.venv/bin:{os.environ['PATH']}")
# About the ranges of versions that OpenZeppelin's files allow; ours pin one compiler.
LEFT_OUT = "pragma,solc-version"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SLITHER is None,
        reason="slither is missing: contracts/requirements.txt says how to install it",
    ),
    pytest.mark.skipif(
        shutil.which("node") is None or not (CONTRACTS / "node_modules" / "solc").is_dir(),
        reason="node, or npm's solc, is missing: npm ci --prefix contracts",
    ),
]


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """What slither finds in our sources and in the planted one: detector to files."""
    folder = tmp_path_factory.mktemp("slither")
    shutil.copytree(CONTRACTS / "src", folder / "src")
    shutil.copy2(PLANTED, folder / "src")
    (folder / "@openzeppelin").symlink_to(CONTRACTS / "node_modules" / "@openzeppelin")
    outputs = {"*": ["abi", "devdoc", "userdoc", "evm.bytecode", "evm.deployedBytecode"]}
    sources = sorted((folder / "src").iterdir())
    asked = {
        "language": "Solidity",
        "sources": {f"src/{path.name}": {"content": path.read_text()} for path in sources},
        "settings": {
            "optimizer": {"enabled": True, "runs": 200},
            "evmVersion": "cancun",
            "outputSelection": {"*": outputs | {"": ["ast"]}},
        },
    }
    (folder / "input.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [
            *(SLITHER, "input.json", "--compile-force-framework", "solc-json"),
            *("--solc", CONTRACTS / "solc.mjs", "--exclude", LEFT_OUT, "--json", "found.json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (folder / "found.json").is_file(), done.stderr
    found = json.loads((folder / "found.json").read_text())
    assert found["success"], found["error"]
    return [
        (result["check"], name)
        for result in found["results"]["detectors"]
        for name in {part["source_mapping"]["filename_relative"] for part in result["elements"]}
        if name.startswith("src/")
    ]


def test_nothing_is_found_in_the_contracts(findings):
    assert [entry for entry in findings if entry[1] != "src/Planted.sol"] == []


def test_what_is_planted_is_found(findings):
    found = {detector for detector, name in findings if name == "src/Planted.sol"}
    assert {"reentrancy-eth", "timestamp"} <= found
