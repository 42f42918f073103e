"""Does a policy allow this; and what is it, in words. Time and history are judged elsewhere."""

from dataclasses import dataclass
from typing import Final

from twopm_flower.errors import RecordError, SignerRefused
from twopm_flower.signer.calls import Function
from twopm_flower.signer.policy import Policy, TypedDataRule, selector_of
from twopm_flower.signer.solana_message import (
    Instruction,
    SolanaMessage,
    base58,
    from_base58,
)
from twopm_flower.signer.transaction import Transaction
from twopm_flower.signer.typed import TypedData

COMPUTE_BUDGET: Final = from_base58("ComputeBudget111111111111111111111111111111")
UNIT_LIMIT, UNIT_PRICE = 2, 3
_ETHER, _GWEI = 10**18, 10**9


@dataclass(frozen=True)
class _Callable:
    contract: str
    function: Function | None


class Judge:
    """Compares requests with a policy.

    Parameters
    ----------
    policy : Policy
    account : str
        The address, or base-58 public key, of the key that would sign.

    Raises
    ------
    SignerRefused
        From every method: the policy does not allow it; the message says why.
    """

    def __init__(self, policy: Policy, account: str) -> None:
        self.policy = policy
        self.account = account
        self._callable = {
            (rule.address, selector_of(text)): _Callable(
                rule.name, None if text.startswith("0x") else Function.parse(text)
            )
            for rule in policy.contracts
            for text in rule.functions
        }
        self._contracts = {rule.address: rule.name for rule in policy.contracts}

    def transaction(self, transaction: Transaction) -> str:
        """Return in words what an allowed transaction does."""
        self._require_limits(transaction)
        what = self._call(transaction)
        return (
            f"{what} on chain {transaction.chain_id}, nonce {transaction.nonce}, "
            f"value {_amount(transaction.value)}, fee at most {_amount(transaction.max_fee)}"
        )

    def typed_data(self, data: TypedData) -> str:
        """Return in words what allowed typed data say."""
        here = [rule for rule in self.policy.typed_data if _is_domain(rule, data)]
        if not here:
            domain = data.domain
            raise SignerRefused(
                f"typed data for the domain {domain['name'][:40]!r} version "
                f"{domain['version'][:20]!r}, chain {domain['chainId']}, contract "
                f"{domain['verifyingContract']} are not allowed"
            )
        if not any(data.type_text in rule.types for rule in here):
            known = {text.partition("(")[0] for rule in here for text in rule.types}
            if data.primary_type in known:
                raise SignerRefused(
                    f"the type {data.primary_type} has other fields than the policy's: "
                    f"{data.type_text[:200]}"
                )
            raise SignerRefused(f"typed data of the type {data.primary_type[:60]} are not allowed")
        domain = data.domain
        return (
            f"{data.explain()} for contract {domain['verifyingContract']} "
            f"on chain {domain['chainId']}"
        )

    def solana(self, message: SolanaMessage) -> str:
        """Return in words what an allowed Solana message does."""
        rules = self.policy.solana
        if rules is None:
            raise SignerRefused("this policy is not for Solana")
        payer = base58(message.fee_payer)
        if message.signers != 1 or payer != self.account:
            raise SignerRefused(
                f"{payer} pays and {message.signers} accounts sign; only {self.account} may, alone"
            )
        if payer != rules.fee_payer:
            raise SignerRefused(f"the policy is for the fee payer {rules.fee_payer}, not {payer}")
        if not message.instructions:
            raise SignerRefused("the message has no instruction")
        return "; ".join(self._instruction(one) for one in message.instructions)

    def _require_limits(self, transaction: Transaction) -> None:
        limits = self.policy.limits
        if transaction.chain_id not in self.policy.chain_ids:
            raise SignerRefused(f"chain {transaction.chain_id} is not allowed")
        for what, wanted, most in (
            ("value", transaction.value, limits.max_value_wei),
            ("maxFeePerGas", transaction.max_fee_per_gas, limits.max_fee_per_gas_wei),
            ("gas", transaction.gas, limits.max_gas),
        ):
            if wanted > most:
                raise SignerRefused(f"{what} is {wanted}; at most {most} is allowed")

    def _call(self, transaction: Transaction) -> str:
        to, data = transaction.to, transaction.data
        if to is None:
            if not self.policy.allow_deployments:
                raise SignerRefused("deploying contracts is not allowed (allow_deployments)")
            return f"deploy a contract of {len(data)} bytes"
        if to == self.account and not data and not transaction.value:
            if not self.policy.allow_fillers:
                raise SignerRefused("filling a nonce with nothing is not allowed (allow_fillers)")
            return "nothing, to use up a nonce"
        if to not in self._contracts:
            raise SignerRefused(f"the contract {to} is not allowed")
        known = self._callable.get((to, data[:4]))
        if len(data) < 4 or known is None:
            raise SignerRefused(
                f"the function 0x{data[:4].hex()} of {self._contracts[to]} is not allowed"
            )
        if known.function is None:
            return f"{known.contract}.0x{data[:4].hex()}({len(data) - 4} bytes, not decoded)"
        try:
            return f"{known.contract}.{known.function.explain(data)}"
        except RecordError as error:
            raise SignerRefused(error.message) from error

    def _instruction(self, instruction: Instruction) -> str:
        rules = self.policy.solana
        program, first = base58(instruction.program), instruction.data[:1]
        rule = next((r for r in rules.programs if r.program == program), None) if rules else None
        if rule is None or rules is None:
            raise SignerRefused(f"the program {program} is not allowed")
        if not first or first[0] not in rule.first_bytes:
            shown = f"starting with byte {first[0]}" if first else "without data"
            raise SignerRefused(f"an instruction {shown} of {program} is not allowed")
        if instruction.program == COMPUTE_BUDGET:
            number = int.from_bytes(instruction.data[1:], "little")
            most = {
                UNIT_LIMIT: rules.max_compute_units,
                UNIT_PRICE: rules.max_compute_unit_price,
            }.get(first[0], 0)
            if number > most:
                raise SignerRefused(f"a compute budget of {number} is above {most}")
        return (
            f"{program} instruction {first[0]}, {len(instruction.data)} bytes, "
            f"{len(instruction.accounts)} accounts"
        )


def _is_domain(rule: TypedDataRule, data: TypedData) -> bool:
    wanted = (rule.name, rule.version, rule.chain_id, rule.verifying_contract)
    named = ("name", "version", "chainId", "verifyingContract")
    return tuple(data.domain[name] for name in named) == wanted


def _amount(wei: int) -> str:
    if wei == 0:
        return "0"
    return f"{wei / _GWEI:.6g} gwei" if wei < _ETHER // 1000 else f"{wei / _ETHER:.6g} ether"
