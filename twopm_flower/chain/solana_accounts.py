"""Reads accounts of our Solana program from an endpoint, and takes nothing else for one."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from solders.pubkey import Pubkey

from twopm_flower.chain.solana_history import COMMITMENT
from twopm_flower.chain.solana_program import AccountInfo
from twopm_flower.chain.solana_rpc import SolanaRpc

ACCOUNTS_AT_ONCE = 100
_SYSTEM = Pubkey.default()

T = TypeVar("T")


class SolanaAccounts:
    """Reads accounts; what an honest endpoint does not answer raises WrongChain.

    Parameters
    ----------
    rpc : SolanaRpc
        The endpoints.
    program : Pubkey
        The program that the accounts belong to.
    """

    def __init__(self, rpc: SolanaRpc, program: Pubkey) -> None:
        self._rpc = rpc
        self._program = program

    def one(self, key: Pubkey, read: Callable[[bytes], T]) -> tuple[T, int] | None:
        """Return what an account of the program holds, and in which slot it did; or None."""
        info = self.info(key)
        value = self._read(info, read)
        return None if value is None or info is None else (value, info.slot)

    def several(self, keys: Sequence[Pubkey], read: Callable[[bytes], T]) -> list[T | None]:
        """Return what accounts of the program hold, each None where there is none."""
        found: list[T | None] = []
        options = {"commitment": COMMITMENT, "encoding": "base64"}
        for start in range(0, len(keys), ACCOUNTS_AT_ONCE):
            asked = keys[start : start + ACCOUNTS_AT_ONCE]
            answer = self._rpc.ask("getMultipleAccounts", [str(key) for key in asked], options)
            try:
                slot, values = int(answer["context"]["slot"]), list(answer["value"])
                infos = [_info(value, slot) for value in values]
            except (TypeError, LookupError, ValueError) as error:
                raise self._rpc.unusable("getMultipleAccounts", error) from error
            if len(infos) != len(asked):
                raise self._rpc.unusable("getMultipleAccounts", "not as many as were asked for")
            found += [self._read(info, read) for info in infos]
        return found

    def _read(self, info: AccountInfo | None, read: Callable[[bytes], T]) -> T | None:
        # Anybody may send lamports to an address before the program makes its account there.
        if info is None or (info.owner == _SYSTEM and not info.data):
            return None
        try:
            value = read(info.data)
        except ValueError as error:
            raise self._rpc.unusable("getAccountInfo", error) from error
        if info.owner != self._program:
            raise self._rpc.unusable("getAccountInfo", f"an account of {info.owner}")
        return value

    def info(self, key: Pubkey) -> AccountInfo | None:
        """Return any account, or None."""
        options = {"commitment": COMMITMENT, "encoding": "base64"}
        answer = self._rpc.ask("getAccountInfo", str(key), options)
        try:
            return _info(answer["value"], int(answer["context"]["slot"]))
        except (TypeError, LookupError, ValueError) as error:
            raise self._rpc.unusable("getAccountInfo", error) from error

    def number(self, method: str, *parameters: Any) -> int:
        """Return the result of a method that answers with a number from 0."""
        answer = self._rpc.ask(method, *parameters)
        if not isinstance(answer, int) or isinstance(answer, bool) or answer < 0:
            raise self._rpc.unusable(method, f"{str(answer)[:80]!r} is no number")
        return answer


def _info(value: Any, slot: int) -> AccountInfo | None:
    if value is None:
        return None
    encoded, encoding = value["data"]
    if encoding != "base64":
        raise ValueError(f"the encoding {encoding!r}")
    return AccountInfo(
        owner=Pubkey.from_string(str(value["owner"])),
        data=base64.b64decode(encoded, validate=True),
        executable=value["executable"] is True,
        slot=slot,
    )
