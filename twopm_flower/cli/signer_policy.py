"""The policy that allows exactly what a coordinator or a node of ours has to sign."""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final, get_args

from twopm_flower.config import ChainSettings
from twopm_flower.errors import ConfigError
from twopm_flower.records import statements
from twopm_flower.records.fields import checksum_address
from twopm_flower.records.statements import DOMAIN_NAME, DOMAIN_VERSION, Statement
from twopm_flower.signer.calls import Function
from twopm_flower.signer.judge import COMPUTE_BUDGET, UNIT_LIMIT, UNIT_PRICE
from twopm_flower.signer.policy import (
    ContractRule,
    Limits,
    Policy,
    ProgramRule,
    SolanaRules,
    TypedDataRule,
)
from twopm_flower.signer.solana_message import base58
from twopm_flower.signer.typed import TypedData, parts_as_request

_OF_THE_NODE_REGISTRY: Final = ("Registration", "Departure")
_OF_THE_DATA_REGISTRY: Final = ("DataPublication",)
_OF_THE_TASK_REGISTRY: Final = (
    "Membership",
    "KeyDeal",
    "ReaderKey",
    "UpdateStatement",
    "FingerprintStatement",
    "OpeningStatement",
    "EvaluationStatement",
    "ModelStatement",
)
# contracts/solana/src/instructions.h, without 0, which sets the program up once
SOLANA_TAGS: Final = tuple(range(1, 15))
# What our connector bids at most, in micro-lamports per compute unit
SOLANA_MAX_PRICE: Final = 5_000_000


class Role(StrEnum):
    """Whose key it is."""

    COORDINATOR = "coordinator"
    NODE = "node"


@dataclass(frozen=True)
class FeeLimits:
    """What transactions may cost: per gas and per day in wei, and how much gas each may use."""

    max_fee_per_gas_wei: int
    max_gas: int
    max_fee_per_day_wei: int


def our_functions() -> dict[str, tuple[Function, ...]]:
    """Return the functions of our contracts that write, by contract."""
    folder = files("twopm_flower.chain") / "artifacts"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda place: place.name):
        if file.name.endswith("Registry.json"):
            abi = json.loads(file.read_text(encoding="utf-8"))["abi"]
            found[file.name.removesuffix(".json")] = tuple(
                Function.from_abi(entry)
                for entry in abi
                if entry["type"] == "function" and entry["stateMutability"] == "nonpayable"
            )
    return found


def address_of(chain: ChainSettings, contract: str) -> str:
    """Return where a chain has one of our contracts; ``TaskRegistry`` is its task_registry."""
    setting = re.sub(r"(?<!^)([A-Z])", r"_\1", contract).lower()
    return checksum_address(getattr(chain, setting))


def statement_types() -> dict[str, tuple[type[Statement], str]]:
    """Return what nodes sign, by name: the record, and the setting that names its contract."""
    return {
        name: (getattr(statements, name), setting)
        for names, setting in (
            (_OF_THE_NODE_REGISTRY, "node_registry"),
            (_OF_THE_TASK_REGISTRY, "task_registry"),
            (_OF_THE_DATA_REGISTRY, "data_registry"),
        )
        for name in names
    }


def make_policy(
    chain: ChainSettings, role: Role, fees: FeeLimits, *, account: str | None = None
) -> Policy:
    """Return the policy for a role on a chain.

    Parameters
    ----------
    chain : ChainSettings
    role : Role
    fees : FeeLimits
        For chains with gas.
    account : str, optional
        The account in base 58, which a Solana policy has to name.

    Raises
    ------
    ConfigError
        `account` is missing; or it is a kind of chain that policies do not know.
    """
    if role is Role.NODE:
        kinds = list(statement_types().values())
        return Policy(version=1, typed_data=_typed_rules(chain, kinds))
    if chain.family == "evm":
        return _evm_policy(chain, fees)
    if chain.family == "ledger":
        return Policy(version=1, typed_data=_typed_rules(chain, _ledger_actions()))
    if chain.family != "solana":
        raise ConfigError(f"no policy is known for the chain family {chain.family!r}")
    if account is None:
        raise ConfigError(
            "a policy for Solana names the account that pays",
            hint="Add --account with its base-58 public key.",
        )
    rules = SolanaRules(
        fee_payer=account,
        programs=[
            ProgramRule(program=chain.program, first_bytes=list(SOLANA_TAGS)),
            ProgramRule(program=base58(COMPUTE_BUDGET), first_bytes=[UNIT_LIMIT, UNIT_PRICE]),
        ],
        max_compute_unit_price=SOLANA_MAX_PRICE,
    )
    return Policy(version=1, solana=rules)


def _evm_policy(chain: ChainSettings, fees: FeeLimits) -> Policy:
    rules: dict[str, ContractRule] = {}
    for name, functions in our_functions().items():
        address = address_of(chain, name)
        texts = [function.text for function in functions]
        rules[address] = ContractRule(name=name, address=address, functions=texts)
    return Policy(
        version=1,
        chain_ids=[chain.chain_id],
        # An outbox fills the gap that a lost transaction leaves in the nonces.
        allow_fillers=True,
        limits=Limits(
            max_fee_per_gas_wei=fees.max_fee_per_gas_wei,
            max_gas=fees.max_gas,
            max_fee_per_day_wei=fees.max_fee_per_day_wei,
        ),
        contracts=list(rules.values()),
    )


def _ledger_actions() -> list[tuple[type[Statement], str]]:
    # Only a coordinator of a ledger needs them.
    from twopm_flower.chain.ledger_actions import AnyAction  # noqa: PLC0415

    kinds = get_args(get_args(AnyAction)[0])
    return [(kind, f"{kind.CONTRACT}_registry") for kind in kinds]


def _typed_rules(
    chain: ChainSettings, kinds: list[tuple[type[Statement], str]]
) -> list[TypedDataRule]:
    texts: dict[str, list[str]] = {}
    for kind, setting in kinds:
        texts.setdefault(checksum_address(getattr(chain, setting)), []).append(_type_text(kind))
    return [
        TypedDataRule(
            name=DOMAIN_NAME,
            version=DOMAIN_VERSION,
            chain_id=chain.chain_id,
            verifying_contract=address,
            types=types,
        )
        for address, types in texts.items()
    ]


def _type_text(kind: type[Statement]) -> str:
    members = ",".join(f"{solidity} {name}" for name, solidity in kind.TYPES.values())
    return f"{kind.__name__}({members})"


def typed_statement(chain: ChainSettings, name: str, values: dict[str, str]) -> TypedData:
    """Return one of our statements as typed data.

    Parameters
    ----------
    chain : ChainSettings
    name : str
        The statement: ``Registration``.
    values : dict
        Its fields, as text, by their EIP-712 names.

    Raises
    ------
    ConfigError
        There is no such statement.
    RecordError
        A field is missing, unknown, or not of its type.
    """
    found = statement_types().get(name)
    if found is None:
        raise ConfigError(
            f"there is no statement {name!r}",
            hint=f"There are {', '.join(statement_types())}.",
        )
    kind, setting = found
    domain = {
        "name": DOMAIN_NAME,
        "version": DOMAIN_VERSION,
        "chainId": chain.chain_id,
        "verifyingContract": checksum_address(getattr(chain, setting)),
    }
    members = [{"name": field, "type": solidity} for field, solidity in kind.TYPES.values()]
    typed: dict[str, object] = {
        field: _from_text(dict(kind.TYPES.values()).get(field, ""), text)
        for field, text in values.items()
    }
    return TypedData.read(parts_as_request(domain, {name: members}, name, typed))


def _from_text(solidity: str, text: str) -> object:
    if solidity == "bool":
        return {"true": True, "false": False}.get(text, text)
    return text.split(",") if solidity.endswith("[]") else text
