"""What it costs to have a transaction signed by the isolated signer instead of in the process."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector

from twopm_flower.bench.chain_report import SignerFigures
from twopm_flower.config import ChainSettings, SignerSettings
from twopm_flower.errors import BenchmarkError
from twopm_flower.node.chain_file import chain_toml
from twopm_flower.signer.base import Signer
from twopm_flower.signer.keystore import LocalSigner, create_key_file
from twopm_flower.signer.opening import open_signer

START_TIMEOUT_S = 30.0
RECORD_ROUND = "recordRound(bytes32,uint32,uint32,bytes32,bytes32)"
# The policy that twopm writes allows 60 transactions a minute.
MOST_REPEATS = 50


def time_signers(folder: Path, chain: ChainSettings, repeats: int) -> SignerFigures:
    """Sign the same kind of transaction with a key in this process, and by a signer apart.

    Parameters
    ----------
    folder : Path
        An empty folder, for key, policy, socket and audit log.
    chain : ChainSettings
        An EVM chain, which the transactions are for; it is not asked.
    repeats : int
        How many transactions each signs; at most 50 are.

    Raises
    ------
    BenchmarkError
        The signer does not start.
    """
    folder.mkdir(mode=0o700)
    key, policy, socket = folder / "account.key", folder / "policy.toml", folder / "signer.sock"
    create_key_file(key)
    (folder / "chain.toml").write_text(chain_toml(chain), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "twopm_flower.cli", "signer"]
    _run([*command, "policy", "--for", str(folder / "chain.toml"), "--out", str(policy)])
    serve = ["serve", "--socket", str(socket), "--key", str(key), "--policy", str(policy)]
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [*command, *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(socket, process)
        remote = open_signer(SignerSettings(url=f"unix://{socket}"), folder)
        local = LocalSigner.from_file(key)
        # Asks for the address, once.
        _sign(remote, chain, 0)
        count = min(repeats, MOST_REPEATS)
        return SignerFigures(
            local_s=tuple(_sign(local, chain, 1 + nonce) for nonce in range(count)),
            isolated_s=tuple(_sign(remote, chain, 1 + nonce) for nonce in range(count)),
        )
    finally:
        process.terminate()
        process.wait()


def _sign(signer: Signer, chain: ChainSettings, nonce: int) -> float:
    arguments = (bytes(32), nonce, 1, bytes(32), bytes(32))
    types = ("bytes32", "uint32", "uint32", "bytes32", "bytes32")
    selector = function_signature_to_4byte_selector(RECORD_ROUND)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": chain.chain_id,
        "nonce": nonce,
        "to": chain.task_registry,
        "data": "0x" + (selector + encode(types, arguments)).hex(),
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    started = time.perf_counter()
    signer.sign_transaction(fields)
    return time.perf_counter() - started


def _run(command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603  # our own interpreter and module
        command, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(f"no policy could be written: {done.stderr.strip()[-300:]}")


def _wait_for(socket: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError("the isolated signer does not start")
        time.sleep(0.05)
