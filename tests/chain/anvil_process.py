"""Anvil, the node that development uses: blocks and reorgs on demand."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

# The first account of anvil's published test mnemonic.
ANVIL_KEY = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")


def find_anvil():
    packages = Path(__file__).parents[2] / "contracts" / "node_modules" / "@foundry-rs"
    installed = sorted(str(path) for path in packages.glob("anvil-*/bin/anvil"))
    return os.environ.get("TWOPM_ANVIL") or shutil.which("anvil") or (installed or [None])[0]


def rpc(url, method, *parameters):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    answer = requests.post(url, json=body, timeout=30).json()
    assert "error" not in answer, answer
    return answer["result"]


@contextmanager
def running_anvil():
    """Run anvil on a free port and yield its address; skip where it is missing."""
    if (anvil := find_anvil()) is None:
        pytest.skip(
            "anvil is missing: run `npm install --no-save @foundry-rs/anvil@1.7.1` in contracts/,"
            " put it on PATH, or set TWOPM_ANVIL to its path"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [anvil, "--port", str(port), "--silent"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                rpc(url, "eth_chainId")
                break
            except requests.ConnectionError:
                assert process.poll() is None, "anvil ended"
                assert time.monotonic() < deadline, "anvil does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()
