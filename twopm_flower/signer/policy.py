"""The policy file of a signer: everything it may sign, and nothing else.

Strict TOML: an unknown or misspelt setting is an error, and what is not allowed is refused.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from eth_utils.address import to_checksum_address
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.signer.calls import Function
from twopm_flower.signer.solana_message import from_base58

Wei = Annotated[int, Field(ge=0, lt=2**256)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ChainId = Annotated[int, Field(ge=1, lt=2**53)]


def _key(value: str) -> str:
    try:
        from_base58(value)
    except RecordError as error:
        raise ValueError(error.message) from error
    return value


def _function(value: str) -> str:
    if value.startswith("0x"):
        if len(value) != 10:
            raise ValueError(f"{value!r} is no selector: 0x and 8 hexadecimal digits")
        bytes.fromhex(value[2:])
        return value.lower()
    try:
        Function.parse(value)
    except RecordError as error:
        raise ValueError(error.message) from error
    return value


Address = Annotated[
    str,
    Field(pattern=r"^0x[0-9a-fA-F]{40}$"),
    AfterValidator(lambda value: str(to_checksum_address(value))),
]
SolanaKey = Annotated[str, AfterValidator(_key)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ContractRule(_Strict):
    """A contract and the functions that may be called.

    ``functions`` are signatures with or without names of parameters, or 4-byte selectors such
    as ``0x6d0f888d``; what a bare selector is called with can neither be checked nor shown.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    address: Address
    functions: Annotated[list[Annotated[str, AfterValidator(_function)]], Field(min_length=1)]


class TypedDataRule(_Strict):
    """An EIP-712 domain and the exact type strings that may be signed for it."""

    name: str
    version: str
    chain_id: ChainId
    verifying_contract: Address
    types: Annotated[list[str], Field(min_length=1)]


class ProgramRule(_Strict):
    """A Solana program and the first bytes of instructions that may be sent to it."""

    program: SolanaKey
    first_bytes: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=1)]


class SolanaRules(_Strict):
    """What may be signed with an ed25519 key.

    ``max_compute_unit_price`` is in millionths of a lamport, ``max_compute_units`` per
    transaction; they bound what the compute budget program may be told.
    """

    fee_payer: SolanaKey
    programs: Annotated[list[ProgramRule], Field(min_length=1)]
    max_compute_unit_price: Annotated[int, Field(ge=0, lt=2**64)] = 0
    max_compute_units: Annotated[int, Field(ge=0, lt=2**32)] = 1_400_000


class Limits(_Strict):
    """Bounds of one transaction, and of how many there are.

    ``max_fee_per_day_wei`` bounds the sum over 24 hours of what the transactions could cost at
    most. ``transactions_per_minute`` and ``_per_hour`` count fee bumps, too, and Solana's
    transactions; ``statements_per_minute`` counts typed data; ``requests_per_minute``
    everything that is asked, refusals included.
    """

    max_value_wei: Wei = 0
    max_fee_per_gas_wei: Wei = 0
    max_gas: Wei = 0
    max_fee_per_day_wei: Wei = 0
    transactions_per_minute: Count = 60
    transactions_per_hour: Count = 600
    statements_per_minute: Count = 600
    requests_per_minute: Count = 3000


class Policy(_Strict):
    """All that a signer may sign.

    ``allow_deployments`` lets it deploy any contract. ``allow_fillers`` lets it send nothing to
    its own address, which uses up a nonce that nothing else will.
    """

    version: Literal[1]
    chain_ids: list[ChainId] = []
    allow_deployments: bool = False
    allow_fillers: bool = False
    limits: Limits = Limits()
    contracts: list[ContractRule] = []
    typed_data: list[TypedDataRule] = []
    solana: SolanaRules | None = None

    @property
    def key_kind(self) -> Literal["secp256k1", "ed25519"]:
        """The kind of key that the policy is for."""
        return "secp256k1" if self.solana is None else "ed25519"

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> "Policy":
        evm = bool(self.chain_ids or self.contracts or self.typed_data or self.allow_deployments)
        if evm and self.solana is not None:
            raise ValueError("one key is for Solana or for other chains, not for both")
        if not evm and self.solana is None:
            raise ValueError("nothing is allowed: name contracts, typed_data or solana")
        if (self.contracts or self.allow_deployments) and not self.chain_ids:
            raise ValueError("chain_ids is missing")
        addresses = [rule.address for rule in self.contracts]
        if len(set(addresses)) != len(addresses):
            raise ValueError("a contract is there twice")
        for rule in self.contracts:
            selectors = [selector_of(function) for function in rule.functions]
            if len(set(selectors)) != len(selectors):
                raise ValueError(f"{rule.name} has a function twice, or two with one selector")
        return self


def selector_of(function: str) -> bytes:
    """Return the selector of a function as a policy names it."""
    if function.startswith("0x"):
        return bytes.fromhex(function[2:])
    return Function.parse(function).selector


def parse_policy(text: str, *, source: str) -> Policy:
    """Read a policy.

    Parameters
    ----------
    text : str
        TOML.
    source : str
        Where it is from, for errors.

    Raises
    ------
    ConfigError
        Not TOML, or a setting is missing, unknown or cannot be used.
    """
    hint = "'twopm signer policy --for chain.toml' writes one; docs/signer.md explains it."
    try:
        return Policy.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the policy {source} is not TOML: {error}", hint=hint) from error
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"the policy {source}: {where + ': ' if where else ''}{first['msg']}", hint=hint
        ) from error


def load_policy(path: Path) -> Policy:
    """Read a policy file; see :func:`parse_policy`.

    Raises
    ------
    ConfigError
        It also cannot be read, or others may change it.
    """
    try:
        if path.stat().st_mode & 0o022:
            raise ConfigError(
                f"others may change the policy {path} (mode {path.stat().st_mode & 0o777:04o})",
                hint=f"Run: chmod go-w {path}",
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the policy {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"the policy {path} is not a text file") from None
    return parse_policy(text, source=str(path))
