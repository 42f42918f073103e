"""What ``twopm signer prepare`` and ``submit`` do with a chain."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from twopm_flower.chain.backends import backend, deployment_of
from twopm_flower.chain.base import Receipt, SignedTransaction
from twopm_flower.chain.evm_account import EvmAccount
from twopm_flower.chain.evm_rpc import EvmRpc
from twopm_flower.cli.signer_policy import statement_types
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.errors import ChainError, ConfigError, SignerError
from twopm_flower.federated.chain_access import open_connector
from twopm_flower.federated.home import write_atomically
from twopm_flower.records.bundle import JoinRequest
from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Membership,
    Registration,
    Signed,
    signed_type,
)
from twopm_flower.signer.carried import SignedRequest
from twopm_flower.signer.transaction import Transaction
from twopm_flower.signer.typed import TypedData


class _NotedError(Exception):
    """What is to be signed is known; there is nobody here to sign it."""


class _Elsewhere:
    """Stands for an account whose key is elsewhere: notes what it would have to sign."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.fields: dict[str, Any] = {}

    def sign_transaction(self, fields: Any) -> bytes:
        self.fields = dict(fields)
        raise _NotedError

    def sign_typed_data(self, *_: Any) -> bytes:
        raise NotImplementedError


def call_on_chain(
    chain: ChainSettings, account: str, name: str, contract: str, data: bytes, *, nonce: int | None
) -> Transaction:
    """Return a call with the gas, fees and nonce that it needs now.

    Raises
    ------
    ConfigError
        The chain is of another family.
    ChainError
        The chain cannot be used, or the contract would refuse the call.
    """
    signer = _Elsewhere(account)
    sender = _account(chain, signer)
    with suppress(_NotedError):
        sender.sign(name, "0x" + data.hex(), contract, nonce=nonce)
    return Transaction.from_fields(signer.fields)


def send(chain: ChainSettings, content: Transaction, signed: SignedRequest) -> dict[str, object]:
    """Broadcast a signed transaction whose nonce is the next one, and wait for it.

    Raises
    ------
    SignerError
        It is for another chain, or its nonce was used by another transaction.
    """
    if content.chain_id != chain.chain_id:
        raise SignerError(f"this is for chain {content.chain_id}, not {chain.chain_id}")
    account, raw = signed.request.account, bytes.fromhex(signed.result[2:])
    sender = _account(chain, _Elsewhere(account))
    transaction = SignedTransaction(
        raw=raw,
        transaction_hash="0x" + keccak(raw).hex(),
        nonce=content.nonce,
        fee=content.max_fee_per_gas,
    )
    if sender.receipt(transaction.transaction_hash) is None:
        with _rpc(chain).asking("eth_getTransactionCount") as web3:
            following = web3.eth.get_transaction_count(account, "latest")  # type: ignore[arg-type]  # text will do
        if following != content.nonce:
            raise SignerError(
                f"the transaction has nonce {content.nonce}; the account's next one is {following}",
                hint="Prepare it again."
                if following > content.nonce
                else "Submit those before it first.",
            )
        if not sender.broadcast(transaction):
            raise ChainError(
                "the chain does not take the transaction as it stands",
                hint="Its fee may have become too low: prepare it again.",
            )
    mined = sender.wait(transaction.transaction_hash)
    return {
        "did": signed.request.words,
        "transaction": transaction.transaction_hash,
        "block": int(mined["blockNumber"]),
        "gas_used": int(mined["gasUsed"]),
    }


def relay(
    home: Path, chain: ChainSettings, content: TypedData, signed: SignedRequest
) -> dict[str, object]:
    """Bring a signed statement to the chain, by the account of the coordinator in `home`.

    Raises
    ------
    ConfigError
        It is none that a chain takes.
    SignatureError, ChainError
        It is not signed as it should be; or the chain cannot be used, or refuses.
    """
    statement: Any = _statement(content, signed, chain).statement
    connector: Any = open_connector(load_settings(home), chain)
    signature = signed.result
    receipt: Receipt
    if isinstance(statement, Registration):
        receipt = connector.register_node(
            statement.node, statement.sealing_key, statement.deadline, signature
        )
    elif isinstance(statement, Departure):
        receipt = connector.deregister_node(statement.node, statement.deadline, signature)
    elif isinstance(statement, DataPublication):
        receipt = connector.publish_data(
            statement.node,
            statement.dataset,
            statement.version,
            commitment=statement.commitment,
            samples=statement.samples,
            signature=signature,
        )
    elif isinstance(statement, Membership):
        receipt = connector.join_task(
            statement.task_id,
            statement.node,
            samples=statement.samples,
            data_commitment=statement.data_commitment,
            sealing_key=statement.sealing_key,
            signature=signature,
        )
    else:
        raise ConfigError(
            f"a chain does not take a {content.primary_type} by itself",
            hint="It is handed to whoever asked for it.",
        )
    return {"did": signed.request.words, "transaction": receipt.transaction_hash}


def write_join_request(path: Path, files: list[SignedRequest], chain: ChainSettings) -> None:
    """Write a signed Registration and a signed Membership as the request of one node.

    Raises
    ------
    ConfigError
        The files are something else.
    SignatureError
        A statement is not signed by the node that it names.
    """
    found: dict[str, Any] = {}
    for file in files:
        content = file.request.content
        if isinstance(content, TypedData):
            found[content.primary_type] = _statement(content, file, chain)
    if found.keys() != {"Registration", "Membership"} or len(files) != 2:
        raise ConfigError(
            "a join request is made of one signed Registration and one signed Membership",
            hint="'twopm signer prepare Membership ...' prepares one.",
        )
    request = JoinRequest(registration=found["Registration"], membership=found["Membership"])
    write_atomically(path, request.to_bytes())


def _statement(content: TypedData, signed: SignedRequest, chain: ChainSettings) -> Signed[Any]:
    known = statement_types().get(content.primary_type)
    if known is None:
        raise ConfigError(f"{content.primary_type} is no statement of ours")
    kind, setting = known
    values = {}
    for field, (name, _) in kind.TYPES.items():
        value = content.message[name]
        value = tuple(value) if isinstance(value, list) else value
        values[field] = "0x" + value.hex() if isinstance(value, bytes) else value
    statement = kind(**values)
    node = getattr(statement, "node", signed.request.account)
    record = signed_type(kind)(node=node, statement=statement, signature=signed.result)
    deployment = deployment_of(chain)
    domains = {
        "node_registry": deployment.registry_domain,
        "data_registry": deployment.data_domain,
        "task_registry": deployment.domain,
    }
    record.check(domains[setting])
    return record


def _rpc(chain: ChainSettings) -> EvmRpc:
    if chain.family != "evm":
        raise ConfigError(
            f"transactions of the chain family {chain.family!r} are not signed offline",
            hint="Statements are, on every chain; and 'twopm signer serve' signs for every chain.",
        )
    endpoints = (chain.rpc_url, *chain.fallback_rpc_urls)
    return EvmRpc(endpoints, timeout_s=chain.timeout_s, pinned=deployment_of(chain))


def _account(chain: ChainSettings, signer: _Elsewhere) -> EvmAccount:
    rpc = _rpc(chain)
    backend(chain.family).open_reader(chain).check()
    return EvmAccount(rpc, signer, chain.chain_id)
