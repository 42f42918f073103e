"""What we put on a chain and sign, read by ethers and by OpenZeppelin's Merkle trees."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from chain_stage import Stage
from record_factories import DOMAIN, SIGNER, statements

from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.evm_events import snake_case
from twopm_flower.records.merkle import UPDATE_LEAF, MerkleTree, leaf_hash, root_from_proof
from twopm_flower.records.statements import sign

JS = Path(__file__).parent / "js"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (JS / "node_modules").is_dir(),
    reason=f"node, or npm's ethers and merkle-tree, are missing: npm ci --prefix {JS}",
)


def run(script, value):
    done = subprocess.run(
        ["node", JS / script],
        input=json.dumps(value),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ethers_reads_every_event_as_the_connector_does(tmp_path):
    with DevnetProcess(tmp_path) as devnet:
        connector = EvmConnector(devnet.url, deploy(devnet.url, devnet.signer), devnet.signer)
        stage = Stage(connector)
        nodes = stage.registered_nodes(3)
        stage.publish(nodes[0], 1)
        task_id = stage.finished_rounds(nodes)
        stage.attest(task_id, nodes)
        stage.finalise(task_id, nodes)
        connector.cancel_task(stage.create(), "no data: „nichts“")
        stage.depart(nodes[0])
        connector.anchor_receipts("0x" + "5a" * 32, 7)
        where = connector.deployment()
        addresses = (
            where.node_registry,
            where.task_registry,
            where.data_registry,
            where.receipt_registry,
        )
        contracts = {
            address: load_contract(name).abi
            for address, name in zip(addresses, CONTRACTS, strict=True)
        }
        read = run("events.mjs", {"url": devnet.url, "contracts": contracts})
        ours = connector.events(0, connector.head_block())
    for event in read:
        event["name"] = snake_case(event["name"])
        event["values"] = {snake_case(name): value for name, value in event["values"].items()}
    assert read == [asdict(event) for event in ours]
    declared = {
        snake_case(entry["name"])
        for name in CONTRACTS
        for entry in load_contract(name).abi
        if entry["type"] == "event" and entry["name"] != "EIP712DomainChanged"
    }
    assert {event["name"] for event in read} == declared


def test_ethers_recovers_the_signer_of_every_kind_of_statement():
    signed = [sign(statement, SIGNER, DOMAIN) for statement in statements()]
    asked = [
        {
            "domain": DOMAIN.typed(),
            "types": entry.statement.types(),
            "message": {
                name: "0x" + value.hex() if isinstance(value, bytes) else as_text(value)
                for name, value in entry.statement.message().items()
            },
            "signature": entry.signature,
        }
        for entry in signed
    ]
    assert run("signers.mjs", asked) == [SIGNER.address] * len(signed)
    for entry in asked:
        name = next(name for name, value in entry["message"].items() if str(value)[:2] == "0x")
        digits = entry["message"][name]
        entry["message"][name] = digits[:-1] + ("0" if digits[-1] != "0" else "1")
        entry["message"][name] = entry["message"][name].lower()
    assert SIGNER.address not in run("signers.mjs", asked)


def as_text(value):
    """Return integers as text: JavaScript's numbers end at 2^53."""
    if isinstance(value, list):
        return [str(inner) for inner in value]
    return value if isinstance(value, bool | str) else str(value)


def test_openzeppelin_and_we_accept_each_others_proofs():
    trees = []
    for count in (1, 2, 3, 5, 8, 13, 33):
        leaves = [
            (f"0x{count:064x}", number, 1, f"0x{number + 1:040x}", f"0x{number * 7:064x}")
            for number in range(count)
        ]
        hashes = [hashed(leaf) for leaf in leaves]
        tree = MerkleTree.of(hashes)
        proofs = [["0x" + step.hex() for step in tree.proof(leaf)] for leaf in hashes]
        trees.append(
            {
                "types": list(UPDATE_LEAF),
                "leaves": leaves,
                "proofs": proofs,
                "root": "0x" + tree.root.hex(),
            }
        )
    answers = run("merkle.mjs", trees)
    for asked, answer in zip(trees, answers, strict=True):
        assert answer["root"] == asked["root"]
        assert all(answer["accepted"])
        for leaf, proof in zip(asked["leaves"], answer["proofs"], strict=True):
            steps = [bytes.fromhex(step[2:]) for step in proof]
            assert "0x" + root_from_proof(hashed(leaf), steps).hex() == answer["root"]
    trees[-1]["root"] = "0x" + "11" * 32
    assert not any(run("merkle.mjs", trees)[-1]["accepted"])


def hashed(leaf):
    task, round_, attempt, node, digest = leaf
    values = (bytes.fromhex(task[2:]), round_, attempt, node, bytes.fromhex(digest[2:]))
    return leaf_hash(UPDATE_LEAF, values)
