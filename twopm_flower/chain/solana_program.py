"""Our Solana program as it comes with the package, and whether it is what a cluster runs."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from solders.pubkey import Pubkey

PROGRAM_ID = Pubkey(hashlib.sha256(b"twopm-flower/solana/local-program/v1").digest())
"""Where our program stands on every local chain; no key exists for it."""

LOADER = Pubkey.from_string("BPFLoader2111111111111111111111111111111111")
"""The loader whose programs can never be changed."""

UPGRADEABLE_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")

# https://github.com/anza-xyz/solana-sdk, loader-v3-interface/src/state.rs
_PROGRAM, _PROGRAM_DATA = 2, 3
_CODE_OFFSET = 45


@dataclass(frozen=True)
class AccountInfo:
    """An account as an endpoint tells it: its owner, its bytes, and in which slot it was so."""

    owner: Pubkey
    data: bytes
    executable: bool
    slot: int


@cache
def packaged_program() -> bytes:
    """Return the ELF of our program."""
    source = files("twopm_flower.chain") / "artifacts" / "solana" / "program.so"
    return source.read_bytes()


@cache
def program_errors() -> Mapping[int, str]:
    """Return the names of our program's errors by their codes."""
    source = files("twopm_flower.chain") / "artifacts" / "solana" / "interface.json"
    interface = json.loads(source.read_text(encoding="utf-8"))
    return {int(code): str(name) for name, code in interface["errors"].items()}


def why_not_ours(
    program: AccountInfo | None, fetch: Callable[[Pubkey], AccountInfo | None]
) -> str | None:
    """Tell why an account does not run this version's program for good, or None when it does.

    Parameters
    ----------
    program : AccountInfo or None
        The account at the program's address.
    fetch : callable
        Returns another account, or None.
    """
    if program is None or not program.executable:
        return "is no program"
    ours = packaged_program()
    if program.owner == LOADER:
        return None if program.data == ours else "is another program"
    if program.owner != UPGRADEABLE_LOADER:
        return f"is loaded by {program.owner}, which is unknown"
    held = None
    if len(program.data) == 36 and program.data[:4] == _PROGRAM.to_bytes(4, "little"):
        held = fetch(Pubkey(program.data[4:]))
    return _why_held_is_not_ours(held, ours)


def _why_held_is_not_ours(held: AccountInfo | None, ours: bytes) -> str | None:
    kind = _PROGRAM_DATA.to_bytes(4, "little")
    if held is None or held.owner != UPGRADEABLE_LOADER or held.data[:4] != kind:
        return "is no program"
    if len(held.data) < _CODE_OFFSET or held.data[12] != 0:
        authority = Pubkey(held.data[13:_CODE_OFFSET].ljust(32, b"\0"))
        return f"can be changed by {authority}, so its rules hold only as long as they please"
    # The account may be longer than the code that was deployed into it.
    code, room = held.data[_CODE_OFFSET:][: len(ours)], held.data[_CODE_OFFSET + len(ours) :]
    return None if code == ours and not any(room) else "is another program"
