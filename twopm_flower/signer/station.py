"""A key file, its policy, its memory and its log, put together to a signing service."""

from collections.abc import Callable
from pathlib import Path

from twopm_flower.signer.audit import AuditLog
from twopm_flower.signer.ed25519 import LocalSolanaSigner, SolanaSigner
from twopm_flower.signer.key_holder import KeyHolder, LocalKeyHolder
from twopm_flower.signer.policy import Policy
from twopm_flower.signer.service import SigningService
from twopm_flower.signer.state import SignerState


def audit_beside(key: Path) -> Path:
    """Return where a key's audit log is unless another place is named."""
    return Path(f"{key}.audit.jsonl")


def state_beside(key: Path) -> Path:
    """Return where a key's state is unless another place is named.

    Beside the key and not the policy: a nonce stays used when the policy is replaced.
    """
    return Path(f"{key}.signer.sqlite")


def open_station(
    key: Path,
    policy: Policy,
    *,
    password_file: Path | None = None,
    audit: Path | None = None,
    state: Path | None = None,
    tell: Callable[[str], None],
) -> tuple[SigningService, Callable[[], None]]:
    """Return the service for a key file, and what closes it.

    Raises
    ------
    ConfigError
        A file cannot be used, or another signer uses this key's state.
    SignerError
        The audit log is broken.
    """
    holder: KeyHolder | SolanaSigner
    if policy.key_kind == "ed25519":
        holder = LocalSolanaSigner.from_file(key, password_file=password_file)
    else:
        holder = LocalKeyHolder.from_file(key, password_file=password_file)
    memory = SignerState(state or state_beside(key))
    try:
        log = AuditLog(audit or audit_beside(key), memory.head())
        return SigningService(holder, policy, memory, log, tell=tell), memory.close
    except BaseException:
        memory.close()
        raise
