"""Our Solana program on LiteSVM, spoken to in the bytes that its interface file defines."""

import base64
import json
import struct
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from eth_keys import keys
from eth_utils import keccak, to_checksum_address
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata

from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Domain,
    Membership,
    ModelStatement,
    Registration,
    Statement,
)

ARTIFACTS = files("twopm_flower.chain") / "artifacts" / "solana"
PROGRAM = (ARTIFACTS / "program.so").read_bytes()
INTERFACE: dict[str, Any] = json.loads((ARTIFACTS / "interface.json").read_text())
ERROR_NAMES = {code: name for name, code in INTERFACE["errors"].items()}
SYSTEM = Pubkey.default()
SIZES = {
    "u8": 1,
    "u16": 2,
    "u32": 4,
    "u64": 8,
    "i64": 8,
    "address": 20,
    "bytes32": 32,
    "bytes65": 65,
}
FAR_FUTURE = 2**40
CHAIN_ID = 123_456_789
START = 1_800_000_000
ZERO = "0x" + "00" * 32


def digest(text: str) -> str:
    return "0x" + keccak(text=text).hex()


def raw(value: str | bytes) -> bytes:
    return bytes.fromhex(value[2:]) if isinstance(value, str) else value


@dataclass(frozen=True)
class Node:
    """A node's secp256k1 key."""

    key: keys.PrivateKey

    @property
    def address(self) -> str:
        return self.key.public_key.to_checksum_address()

    @property
    def sealing_key(self) -> str:
        return digest("sealing " + self.address)

    def sign(self, statement: Statement, domain: Domain) -> bytes:
        made = self.key.sign_msg_hash(statement.signing_hash(domain))
        return made.r.to_bytes(32) + made.s.to_bytes(32) + bytes([27 + made.v])


def node_of(number: int) -> Node:
    return Node(keys.PrivateKey(keccak(text=f"node {number}")))


@dataclass(frozen=True)
class Outcome:
    """What became of a transaction: the error's name or None, its events, what it cost."""

    error: str | None
    events: list[tuple[str, dict[str, Any]]]
    units: int


@dataclass
class Machine:
    """A chain with the program and one coordinator who pays for everything."""

    svm: LiteSVM = field(default_factory=LiteSVM)
    program: Pubkey = field(default_factory=lambda: Pubkey(b"twopm-flower program for tests.."))
    coordinator: Keypair = field(default_factory=lambda: Keypair.from_seed(b"c" * 32))
    fee_payer: Keypair = field(default_factory=lambda: Keypair.from_seed(b"f" * 32))
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    units: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.svm.add_program(self.program, PROGRAM)
        for who in (self.coordinator, self.fee_payer):
            self.svm.airdrop(who.pubkey(), 10**11)
        clock = self.svm.get_clock()
        clock.unix_timestamp = START
        self.svm.set_clock(clock)

    # Sending

    def send(self, instruction: Instruction, *signers: Keypair) -> Outcome:
        """Send one instruction in a transaction that somebody else pays the fee of."""
        needed = [meta.pubkey for meta in instruction.accounts if meta.is_signer]
        present = [who for who in (signers or (self.coordinator,)) if who.pubkey() in needed]
        everyone = [self.fee_payer, *present]
        self.svm.expire_blockhash()
        recent = self.svm.latest_blockhash()
        message = Message.new_with_blockhash(
            [set_compute_unit_limit(1_400_000), instruction], self.fee_payer.pubkey(), recent
        )
        transaction = Transaction(everyone, message, recent)
        if len(bytes(transaction)) > 1232:
            raise ValueError(f"a transaction of {len(bytes(transaction))} bytes does not travel")
        result = self.svm.send_transaction(transaction)
        if isinstance(result, FailedTransactionMetadata):
            code = getattr(getattr(result.err(), "err", None), "code", None)
            return Outcome(ERROR_NAMES.get(code, str(result.err())), [], 0)
        events = [
            decode_event(base64.b64decode(line.removeprefix("Program data: ")))
            for line in result.logs()
            if line.startswith("Program data: ")
        ]
        self.events += events
        units = result.compute_units_consumed()
        return Outcome(None, events, units)

    def instruction(
        self, name: str, accounts: dict[str, Pubkey], *more: Pubkey, **values: Any
    ) -> Instruction:
        """Encode an instruction; `more` are the accounts that follow the fixed ones."""
        shape = INTERFACE["instructions"][name]
        data = bytes([shape["tag"]]) + encode(shape["fields"], values)
        known = {
            "payer": self.coordinator.pubkey(),
            "coordinator": self.coordinator.pubkey(),
            "issuer": self.coordinator.pubkey(),
            "config": self.config,
            "system": SYSTEM,
            **accounts,
        }
        metas = [
            AccountMeta(known[role], "s" in flags, "w" in flags)
            for role, flags in shape["accounts"]
        ]
        metas += [AccountMeta(key, False, False) for key in more]
        return Instruction(self.program, data, metas)

    # Addresses

    def at(self, *seeds: bytes) -> Pubkey:
        return Pubkey.find_program_address(list(seeds), self.program)[0]

    @property
    def config(self) -> Pubkey:
        return self.at(b"config")

    @property
    def counter(self) -> Pubkey:
        return self.at(b"coordinator", bytes(self.coordinator.pubkey()))

    def node_at(self, node: Node) -> Pubkey:
        return self.at(b"node", raw(node.address))

    def dataset_at(self, node: Node, name: str) -> Pubkey:
        return self.at(b"dataset", raw(node.address), raw(name))

    def task_at(self, task_id: str) -> Pubkey:
        return self.at(b"task", raw(task_id))

    def member_at(self, task_id: str, node: Node) -> Pubkey:
        return self.at(b"member", raw(task_id), raw(node.address))

    def tally_at(self, statement: ModelStatement) -> Pubkey:
        return self.at(b"tally", statement.signing_hash(self.domain("task")))

    def anchor_at(self, root: str) -> Pubkey:
        return self.at(b"anchor", bytes(self.coordinator.pubkey()), raw(root))

    def registry(self, name: str) -> str:
        seed = f"twopm-flower/solana/{name}-registry/v1".encode() + bytes(self.program)
        return to_checksum_address(keccak(seed)[12:])

    def domain(self, name: str) -> Domain:
        return Domain(chain_id=CHAIN_ID, verifying_contract=self.registry(name))

    def task_id(self, counter: int = 0) -> str:
        parts = b"twopm-flower/solana/task/v1" + CHAIN_ID.to_bytes(8) + bytes(self.program)
        return "0x" + keccak(parts + bytes(self.coordinator.pubkey()) + counter.to_bytes(8)).hex()

    def read(self, kind: str, address: Pubkey) -> dict[str, Any] | None:
        """Decode an account, or return None where there is none."""
        account = self.svm.get_account(address)
        if account is None or not account.data:
            return None
        shape, data = INTERFACE["accounts"][kind], bytes(account.data)
        assert account.owner == self.program
        assert data[:2] == bytes([shape["kind"], 1])
        assert len(data) == shape["length"] or kind == "tally"
        return {
            name: data[offset:] if of == "bitmap" else decode(of, data[offset : offset + SIZES[of]])
            for name, offset, of in shape["fields"]
        }

    # The story, step by step; what is `changed` may make an instruction false

    def initialise(self, **changed: Any) -> Instruction:
        values = {
            "chain_id": CHAIN_ID,
            **{f"{name}_registry": raw(self.registry(name)) for name in ("node", "task", "data")},
        }
        return self.instruction("initialise", {}, **values | changed)

    def register(self, node: Node, nonce: int = 0, **changed: Any) -> Instruction:
        values = {
            "node": node.address,
            "sealing_key": node.sealing_key,
            "deadline": FAR_FUTURE,
        } | changed
        signature = values.pop("signature", None) or node.sign(
            Registration(node=node.address, sealing_key=values["sealing_key"], nonce=nonce,
                         deadline=values["deadline"]),
            self.domain("node"),
        )  # fmt: skip
        return self.instruction(
            "register", {"node": self.node_at(node)}, **values, signature=signature
        )

    def depart(self, node: Node, nonce: int, **changed: Any) -> Instruction:
        values = {"node": node.address, "deadline": FAR_FUTURE} | changed
        signature = values.pop("signature", None) or node.sign(
            Departure(node=node.address, nonce=nonce, deadline=values["deadline"]),
            self.domain("node"),
        )
        return self.instruction(
            "depart", {"node": self.node_at(node)}, **values, signature=signature
        )

    def publish(self, node: Node, version: int = 1, **changed: Any) -> Instruction:
        values = {
            "node": node.address, "dataset": digest("pupils"), "version": version,
            "commitment": digest(f"commitment {version}"), "samples": 200,
        } | changed  # fmt: skip
        signature = values.pop("signature", None) or node.sign(
            DataPublication.model_construct(**values), self.domain("data")
        )
        accounts = {"node": self.node_at(node), "dataset": self.dataset_at(node, values["dataset"])}
        return self.instruction("publish", accounts, **values, signature=signature)

    def create_task(self, counter: int = 0, **changed: Any) -> Instruction:
        values = {
            "terms_digest": digest("terms"), "rounds": 2, "min_contributors": 3, "quorum": 2,
            "max_samples": 1000,
        } | changed  # fmt: skip
        accounts = {"counter": self.counter, "task": self.task_at(self.task_id(counter))}
        return self.instruction("create_task", accounts, **values)

    def join(self, node: Node, task_id: str | None = None, **changed: Any) -> Instruction:
        task_id = task_id or self.task_id()
        values = {
            "node": node.address, "samples": 100, "data_commitment": digest("data " + node.address),
            "sealing_key": node.sealing_key,
        } | changed  # fmt: skip
        terms = values.pop("terms_digest", digest("terms"))
        signature = values.pop("signature", None) or node.sign(
            Membership.model_construct(task_id=task_id, terms_digest=terms, **values),
            self.domain("task"),
        )
        accounts = {
            "task": self.task_at(task_id),
            "node": self.node_at(node),
            "member": self.member_at(task_id, node),
        }
        return self.instruction("join", accounts, **values, signature=signature)

    def of_task(self, name: str, task_id: str | None = None, **values: Any) -> Instruction:
        return self.instruction(name, {"task": self.task_at(task_id or self.task_id())}, **values)

    def record(self, number: int, attempt: int = 1, **changed: Any) -> Instruction:
        values = {
            "round": number, "attempt": attempt,
            "manifest_digest": digest(f"manifest {number} {attempt}"),
            "updates_root": digest(f"root {number} {attempt}"),
        } | changed  # fmt: skip
        return self.of_task("record_round", **values)

    def model(self, number: int = 2, attempt: int = 1, model: str = "model") -> ModelStatement:
        return ModelStatement(
            task_id=self.task_id(),
            round=number,
            manifest_digest=digest(f"manifest {number} {attempt}"),
            model_digest=digest(model),
            metrics_digest=digest("metrics"),
        )

    def open_tally(
        self, statement: ModelStatement, attempt: int = 1, **changed: Any
    ) -> Instruction:
        values = {
            "manifest_digest": statement.manifest_digest,
            "updates_root": digest(f"root {statement.round} {attempt}"),
            "model_digest": statement.model_digest,
            "metrics_digest": statement.metrics_digest,
        } | changed
        accounts = {"task": self.task_at(self.task_id()), "tally": self.tally_at(statement)}
        return self.instruction("open_tally", accounts, **values)

    def add_signatures(
        self, statement: ModelStatement, nodes: list[Node], signatures: list[bytes] | None = None
    ) -> Instruction:
        ordered = nodes if signatures else sorted(nodes, key=lambda node: raw(node.address))
        made = signatures or [node.sign(statement, self.domain("task")) for node in ordered]
        accounts = {"task": self.task_at(self.task_id()), "tally": self.tally_at(statement)}
        members = [self.member_at(self.task_id(), node) for node in ordered]
        return self.instruction(
            "add_signatures", accounts, *members, count=len(made), signatures=made
        )

    def with_tally(self, name: str, statement: ModelStatement) -> Instruction:
        accounts = {"task": self.task_at(self.task_id()), "tally": self.tally_at(statement)}
        return self.instruction(name, accounts)

    def anchor(self, root: str, count: int = 5) -> Instruction:
        return self.instruction("anchor", {"anchor": self.anchor_at(root)}, root=root, count=count)

    def cancel(self, reason: str = "") -> Instruction:
        return self.of_task("cancel", reason=reason)

    def all_well(self, *instructions: Instruction) -> None:
        """Send instructions that must succeed."""
        tags = {shape["tag"]: name for name, shape in INTERFACE["instructions"].items()}
        for instruction in instructions:
            name = tags[instruction.data[0]]
            outcome = self.send(instruction)
            if outcome.error:
                raise AssertionError(f"{name}: {outcome.error}")
            self.units[name] = max(self.units.get(name, 0), outcome.units)


def running(nodes: int = 3, **terms: Any) -> Machine:
    """Return a machine whose task 0 has started with nodes 0 to `nodes` - 1."""
    machine = opened(nodes, **terms)
    machine.all_well(machine.of_task("start"))
    return machine


def opened(nodes: int = 3, **terms: Any) -> Machine:
    """Return a machine whose task 0 is open, with members."""
    machine = Machine()
    members = [node_of(number) for number in range(nodes)]
    machine.all_well(machine.initialise(), *(machine.register(node) for node in members))
    machine.all_well(machine.create_task(**terms), *(machine.join(node) for node in members))
    return machine


def recorded(nodes: int = 3, rounds: int = 2, **terms: Any) -> Machine:
    """Return a machine whose task 0 has all its rounds recorded."""
    machine = running(nodes, rounds=rounds, **terms)
    machine.all_well(*(machine.record(number) for number in range(1, rounds + 1)))
    return machine


def encode(fields: list[list[str]], values: dict[str, Any]) -> bytes:
    data = b""
    for name, of in fields:
        value = values[name]
        if of == "text":
            text = value.encode()
            data += struct.pack("<H", len(text)) + text
        elif of == "bytes65[]":
            data += b"".join(value)
        elif of in ("address", "bytes32", "bytes65"):
            data += raw(value)
        else:
            data += value.to_bytes(SIZES[of], "little")
    return data


def decode(of: str, data: bytes) -> int | str:
    if of == "address":
        return to_checksum_address(data)
    if of == "bytes32":
        return "0x" + data.hex()
    return int.from_bytes(data, "little", signed=of == "i64")


def decode_event(data: bytes) -> tuple[str, dict[str, Any]]:
    name, shape = next(
        (name, shape) for name, shape in INTERFACE["events"].items() if shape["tag"] == data[0]
    )
    assert data[1] == 1
    values: dict[str, Any] = {}
    at = 2
    for field_name, of in shape["fields"]:
        if of == "text":
            length = struct.unpack_from("<H", data, at)[0]
            values[field_name] = data[at + 2 : at + 2 + length].decode()
            at += 2 + length
        else:
            values[field_name] = decode(of, data[at : at + SIZES[of]])
            at += SIZES[of]
    assert at == len(data), name
    return name, values
