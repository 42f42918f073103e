"""The contracts on a chain of their own, called through nothing but their interface."""

from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3.contract import Contract as Web3Contract

from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.devnet import Devnet
from twopm_flower.chain.evm_rpc import EvmRpc
from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Domain,
    Membership,
    ModelStatement,
    Registration,
    sign,
)
from twopm_flower.signer.keystore import LocalSigner

FAR_FUTURE = 4_000_000_000
ZERO = bytes(32)


def word(number: int) -> bytes:
    """Return 32 bytes that no other number gives, none of them zero."""
    return bytes((number * (place + 1) + place) % 255 + 1 for place in range(32))


def signer(number: int) -> LocalSigner:
    """Return the same account for the same number."""
    return LocalSigner(word(number))


def hex32(value: bytes) -> str:
    return "0x" + value.hex()


def in_signing_order(nodes):
    return sorted(nodes, key=lambda node: int(node.address, 16))


@dataclass
class Contracts:
    """The four contracts, deployed for whoever made this, and the accounts that call them."""

    devnet: Devnet
    deployed: dict[str, Web3Contract] = field(default_factory=dict)
    deployments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rpc = EvmRpc(self.devnet.rpc)
        for name in CONTRACTS:
            contract = load_contract(name)
            factory = self.rpc.web3.eth.contract(abi=contract.abi, bytecode=contract.bytecode)
            needs_nodes = name in ("TaskRegistry", "DataRegistry")
            arguments = [self.address("NodeRegistry")] if needs_nodes else []
            data = str(factory.constructor(*arguments).data_in_transaction)
            receipt = self.transact(self.devnet.signer, data)
            assert receipt["status"] == 1
            self.deployments[name] = receipt
            self.deployed[name] = self.rpc.web3.eth.contract(
                address=receipt["contractAddress"], abi=contract.abi
            )

    def address(self, name: str) -> str:
        return str(self.deployed[name].address)

    def domain(self, name: str) -> Domain:
        return Domain(chain_id=self.devnet.chain_id, verifying_contract=self.address(name))

    def transact(self, account: LocalSigner, data: str, *, to: str | None = None, value: int = 0):
        """Mine a transaction and return its receipt, whether it succeeded or not."""
        eth = self.rpc.web3.eth
        fields = {
            "type": 2,
            "chainId": self.devnet.chain_id,
            "nonce": eth.get_transaction_count(to_checksum_address(account.address)),
            "data": data,
            "value": value,
            "gas": 4_000_000,
            "maxFeePerGas": 2 * eth.gas_price,
            "maxPriorityFeePerGas": 1,
        }
        if to is not None:
            fields["to"] = to
        sent = eth.send_raw_transaction(account.sign_transaction(fields))
        return eth.wait_for_transaction_receipt(sent, poll_latency=0.01)

    def fund(self, account: LocalSigner) -> None:
        self.transact(self.devnet.signer, "0x", to=account.address, value=10**20)

    def encode(self, name: str, function: str, *arguments) -> str:
        return str(self.deployed[name].encode_abi(function, args=list(arguments)))

    def try_out(self, name: str, function: str, *arguments, caller: LocalSigner) -> None:
        """Ask what a call would do, without doing it; TransactionReverted when it is refused."""
        with self.rpc.asking(function) as web3:
            web3.eth.call(
                {
                    "from": to_checksum_address(caller.address),
                    "to": self.address(name),
                    "data": self.encode(name, function, *arguments),
                }
            )

    def do(self, name: str, function: str, *arguments, caller: LocalSigner | None = None):
        """Call a function in a transaction; TransactionReverted when it is refused."""
        account = caller or self.devnet.signer
        data = self.encode(name, function, *arguments)
        receipt = self.transact(account, data, to=self.address(name))
        if receipt["status"] != 1:
            self.try_out(name, function, *arguments, caller=account)
            raise AssertionError(f"{function} failed in a block and succeeds after it")
        return receipt

    def get(self, name: str, function: str, *arguments):
        """Return what a getter tells."""
        with self.rpc.asking(function):
            return self.deployed[name].functions[function](*arguments).call()

    def logs(self, name: str, first_block: int = 0):
        """Return the decoded events of a contract, oldest first."""
        contract = self.deployed[name]
        known = {bytes.fromhex(event.topic[2:]): event for event in contract.all_events()}
        asked = {"address": contract.address, "fromBlock": first_block, "toBlock": "latest"}
        return [
            known[bytes(entry["topics"][0])]().process_log(entry)
            for entry in self.rpc.web3.eth.get_logs(asked)
        ]


def signed(statement, node: LocalSigner, domain: Domain) -> bytes:
    return bytes.fromhex(sign(statement, node, domain).signature[2:])


def registration(contracts, node, key: bytes, nonce: int, deadline: int = FAR_FUTURE):
    """Return the arguments of ``register``."""
    statement = Registration(
        node=node.address, sealing_key=hex32(key), nonce=nonce, deadline=deadline
    )
    signature = signed(statement, node, contracts.domain("NodeRegistry"))
    return node.address, key, deadline, signature


def departure(contracts, node, nonce: int, deadline: int = FAR_FUTURE):
    """Return the arguments of ``depart``."""
    statement = Departure(node=node.address, nonce=nonce, deadline=deadline)
    return node.address, deadline, signed(statement, node, contracts.domain("NodeRegistry"))


def publication(contracts, node, dataset: bytes, version: int, commitment: bytes, samples: int):
    """Return the arguments of ``publish``."""
    statement = DataPublication(
        node=node.address,
        dataset=hex32(dataset),
        version=version,
        commitment=hex32(commitment),
        samples=samples,
    )
    signature = signed(statement, node, contracts.domain("DataRegistry"))
    return node.address, dataset, version, commitment, samples, signature


def joining(contracts, task_id: bytes, terms: bytes, node, samples: int, key: bytes):
    """Return one element of what ``join`` takes."""
    commitment = word(int(node.address[-2:], 16) + 1)
    statement = Membership(
        task_id=hex32(task_id),
        terms_digest=hex32(terms),
        node=node.address,
        samples=samples,
        data_commitment=hex32(commitment),
        sealing_key=hex32(key),
    )
    signature = signed(statement, node, contracts.domain("TaskRegistry"))
    return node.address, samples, commitment, key, signature


def model(contracts, task_id: bytes, round_: int, last, digest: bytes, metrics: bytes, nodes):
    """Return the arguments of ``attest`` and ``finalise``."""
    statement = ModelStatement(
        task_id=hex32(task_id),
        round=round_,
        manifest_digest=hex32(last[2]),
        model_digest=hex32(digest),
        metrics_digest=hex32(metrics),
    )
    domain = contracts.domain("TaskRegistry")
    signatures = [signed(statement, node, domain) for node in in_signing_order(nodes)]
    return task_id, last, digest, metrics, signatures


def task_id_of(chain_id: int, registry: str, coordinator: str, number: int) -> bytes:
    """Return the identifier of a coordinator's task, counted from 0."""
    kinds = ["uint256", "address", "address", "uint256"]
    return keccak(encode(kinds, [chain_id, registry, coordinator, number]))
