"""Measures what each transaction costs: ``python tests/contracts/gas_measurement.py``.

Prints the table of contracts/gas.json. Call data costs 16 gas for a byte and 4 for a zero; every
byte of a digest, key, address or signature is counted as 16, so that the figures are the most that
a call can cost and do not depend on the values drawn.
"""

import json
import sys
import tempfile
from pathlib import Path

from contract_calls import (
    ZERO,
    Contracts,
    departure,
    joining,
    model,
    publication,
    registration,
    signer,
    task_id_of,
    word,
)

from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.devnet import Devnet

SNAPSHOT = Path(__file__).parents[2] / "contracts" / "gas.json"
BYTE_GAS, ZERO_BYTE_GAS = 16, 4
TERMS = word(1)


def data_gas(data: bytes) -> int:
    zeros = data.count(0)
    return ZERO_BYTE_GAS * zeros + BYTE_GAS * (len(data) - zeros)


def without_zeros(value):
    """Return a value of the same kind whose free bytes are all other than zero."""
    if isinstance(value, bytes):
        return b"\x11" * len(value)
    if isinstance(value, str) and value.startswith("0x"):
        return "0x" + "11" * 20
    if isinstance(value, list | tuple):
        return type(value)(without_zeros(inner) for inner in value)
    return value


class Meter:
    """Makes transactions and notes what they cost."""

    def __init__(self, contracts: Contracts) -> None:
        self.contracts = contracts
        self.figures: dict[str, int] = {}
        for name, receipt in contracts.deployments.items():
            constructed = 32 if name in ("TaskRegistry", "DataRegistry") else 0
            self.figures[f"deploy {name}"] = receipt["gasUsed"] + self._address(constructed)

    def _address(self, length: int) -> int:
        if not length:
            return 0
        most = 12 * ZERO_BYTE_GAS + 20 * BYTE_GAS
        return most - data_gas(bytes(12) + bytes.fromhex(self._nodes[2:]))

    @property
    def _nodes(self) -> str:
        return self.contracts.address("NodeRegistry")

    def __call__(self, what: str, contract: str, function: str, *arguments) -> None:
        encode = self.contracts.encode
        receipt = self.contracts.do(contract, function, *arguments)
        sent = bytes.fromhex(encode(contract, function, *arguments)[2:])
        most = bytes.fromhex(encode(contract, function, *without_zeros(arguments))[2:])
        self.figures[what] = receipt["gasUsed"] - data_gas(sent) + data_gas(most)


def measure(contracts: Contracts) -> dict[str, int]:
    """Return the gas of every kind of transaction, by what it does."""
    meter = Meter(contracts)
    nodes = [signer(10 + place) for place in range(16)]
    keys = {node.address: word(100 + place) for place, node in enumerate(nodes)}

    meter(
        "register a node",
        "NodeRegistry",
        "register",
        *registration(contracts, nodes[0], word(9), 0),
    )
    again = registration(contracts, nodes[0], keys[nodes[0].address], 1)
    meter("replace a node's key", "NodeRegistry", "register", *again)
    for node in nodes[1:]:
        contracts.do(
            "NodeRegistry", "register", *registration(contracts, node, keys[node.address], 0)
        )
    first = publication(contracts, nodes[0], word(2), 1, word(3), 20)
    meter("publish the first version of a dataset", "DataRegistry", "publish", *first)
    second = publication(contracts, nodes[0], word(2), 2, word(4), 20)
    meter("publish the next version", "DataRegistry", "publish", *second)

    def new_task(what: str) -> bytes:
        coordinator = contracts.devnet.signer.address
        number = contracts.get("TaskRegistry", "tasksCreatedBy", coordinator)
        meter(what, "TaskRegistry", "createTask", TERMS, 10, 3, 3, 1000)
        registry = contracts.address("TaskRegistry")
        return task_id_of(contracts.devnet.chain_id, registry, coordinator, number)

    def consents(task_id: bytes, members) -> list:
        return [joining(contracts, task_id, TERMS, n, 100, keys[n.address]) for n in members]

    task_id = new_task("create a first task")
    for what, members in (
        ("join two together", nodes[:2]),
        ("join alone", nodes[2:3]),
        ("join three together", nodes[3:6]),
        ("join ten together", nodes[6:]),
    ):
        meter(what, "TaskRegistry", "join", task_id, consents(task_id, members))
    meter("start a task", "TaskRegistry", "start", task_id)
    meter("record the first round", "TaskRegistry", "recordRound", task_id, 1, 1, word(5), word(6))
    meter("record a later attempt", "TaskRegistry", "recordRound", task_id, 1, 2, word(7), word(6))
    head = contracts.get("TaskRegistry", "getTask", task_id)[9]
    meter("record the next round", "TaskRegistry", "recordRound", task_id, 2, 1, word(8), word(6))
    last = (head, 1, word(8), word(6))
    for count in (3, 10):
        values = model(contracts, task_id, 2, last, word(2), word(3), nodes[:count])
        meter(f"attest a model with {count} signatures", "TaskRegistry", "attest", *values)

    short = new_task("create another task")
    contracts.do("TaskRegistry", "join", short, consents(short, nodes[:3]))
    contracts.do("TaskRegistry", "start", short)
    head = ZERO
    for number in range(1, 11):
        head = contracts.get("TaskRegistry", "getTask", short)[9]
        contracts.do("TaskRegistry", "recordRound", short, number, 1, word(5), word(6))
    ending = model(contracts, short, 10, (head, 1, word(5), word(6)), word(2), word(3), nodes[:3])
    meter("finalise a task with 3 signatures", "TaskRegistry", "finalise", *ending)
    meter("cancel a task", "TaskRegistry", "cancel", task_id, "too few nodes answered in time")
    meter(
        "take a node off the register", "NodeRegistry", "depart", *departure(contracts, nodes[0], 2)
    )
    meter("anchor a batch of receipts", "ReceiptRegistry", "anchor", word(3), 1000)
    return meter.figures


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder, Devnet(Path(folder)) as devnet:
        figures = measure(Contracts(devnet))
    sizes = {name: len(load_contract(name).runtime) for name in CONTRACTS}
    json.dump({"gas": figures, "bytes of code": sizes}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
