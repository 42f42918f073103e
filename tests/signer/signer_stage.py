"""A signer in a process of its own, and those who ask it, honest or not."""

import json
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account

from twopm_flower.records.fields import checksum_address
from twopm_flower.records.statements import Domain, Membership
from twopm_flower.signer.audit import AuditLog
from twopm_flower.signer.calls import Function
from twopm_flower.signer.key_holder import LocalKeyHolder
from twopm_flower.signer.policy import parse_policy
from twopm_flower.signer.service import SigningService
from twopm_flower.signer.state import SignerState

CHAIN = 31337
GWEI = 10**9
CONTRACT = "0x" + "c0" * 20
REGISTRY = Domain(chain_id=CHAIN, verifying_contract=checksum_address(CONTRACT))
START = Function.parse("start(bytes32 taskId)")
CANCEL = Function.parse("cancel(bytes32 taskId, string reason)")
TASK = b"\x11" * 32

MEMBERSHIP = (
    "Membership(bytes32 taskId,bytes32 termsDigest,address node,uint64 samples,"
    "bytes32 dataCommitment,bytes32 sealingKey)"
)

POLICY = f"""
version = 1
chain_ids = [{CHAIN}]
allow_fillers = true
[limits]
max_fee_per_gas_wei = {100 * GWEI}
max_gas = 500_000
max_fee_per_day_wei = {10**18}
[[contracts]]
name = "TaskRegistry"
address = "{CONTRACT}"
functions = ["{START.text}", "{CANCEL.text}"]
[[typed_data]]
name = "twopm-flower"
version = "1"
chain_id = {CHAIN}
verifying_contract = "{CONTRACT}"
types = ["{MEMBERSHIP}"]
"""


def transaction(**changes: Any) -> dict[str, Any]:
    """Return a transaction that the policy allows, or one that differs in what is named."""
    allowed = {
        "type": "0x2",
        "chainId": hex(CHAIN),
        "nonce": "0x0",
        "to": CONTRACT,
        "value": "0x0",
        "data": "0x" + START.encode([TASK]).hex(),
        "gas": hex(100_000),
        "maxFeePerGas": hex(10 * GWEI),
        "maxPriorityFeePerGas": hex(GWEI),
    }
    merged = {**allowed, **changes}
    return {name: value for name, value in merged.items() if value is not ...}


def membership(node: str) -> dict[str, Any]:
    """Return typed data that the policy allows."""
    digest = "0x" + "22" * 32
    statement = Membership(
        task_id=digest,
        terms_digest=digest,
        node=node,
        samples=7,
        data_commitment=digest,
        sealing_key=digest,
    )
    message = statement.message()
    message |= {name: "0x" + v.hex() for name, v in message.items() if isinstance(v, bytes)}
    return {
        "types": statement.types(),
        "domain": REGISTRY.typed(),
        "primaryType": "Membership",
        "message": message,
    }


@dataclass
class Key:
    """A key file, and what tests look for."""

    path: Path
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        self.path.write_text(self.secret.hex())
        self.path.chmod(0o600)
        self.address = str(Account.from_key(self.secret).address)


def local_service(folder: Path, *, policy: str = POLICY, clock=None, key: Key | None = None):
    """Return a service in this process with its state, for what needs no socket."""
    key = key or Key(folder / "own.key")
    state = SignerState(folder / "state.sqlite")
    audit = AuditLog(folder / "audit.jsonl", state.head())
    told: list[str] = []
    more = {} if clock is None else {"clock": clock}
    service = SigningService(
        LocalKeyHolder(key.secret),
        parse_policy(policy, source="a test"),
        state,
        audit,
        tell=told.append,
        **more,
    )
    return service, state, told


class Serving:
    """`twopm signer serve` as a process."""

    def __init__(self, folder: Path, key: Key, policy: str = POLICY, *options: object) -> None:
        self.folder, self.key = folder, key
        self.socket = folder / "s.sock"
        self.policy = folder / "policy.toml"
        self.policy.write_text(policy)
        self.options = [str(o) for o in options] or ["--socket", str(self.socket)]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "twopm_flower.cli", "signer", "serve", "--json"]
        command += ["--key", str(self.key.path), "--policy", str(self.policy), *self.options]
        self.errors = (self.folder / "stderr").open("ab")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        line = self.process.stdout.readline()
        assert line, (self.folder / "stderr").read_text()
        self.told = json.loads(line)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(30)
        self.process.stdout.close()
        self.errors.close()
        return status

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        path = Path(f"{self.key.path}.audit.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def exchange(self, data: bytes) -> tuple[int, bytes]:
        """Send raw bytes and return the status and the body of what comes back."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket))
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # answered before it read all of it
            answer = b""
            try:
                while part := connection.recv(65536):
                    answer += part
            except ConnectionResetError:
                pass
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, body

    def post(self, body: bytes, path: str = "/") -> tuple[int, bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return self.exchange(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def ask(self, method: str, *parameters: Any) -> tuple[int, dict[str, Any]]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        status, body = self.post(json.dumps(request).encode())
        return status, json.loads(body)
