"""Solana as a chain backend: any cluster that runs our program, and the local chain."""

from collections.abc import Sequence
from pathlib import Path

from solders.pubkey import Pubkey

from twopm_flower.chain.backends import KeyKind, deployment_of
from twopm_flower.chain.solana_account import SolanaAccount
from twopm_flower.chain.solana_accounts import SolanaAccounts
from twopm_flower.chain.solana_connector import SolanaConnector
from twopm_flower.chain.solana_history import SolanaHistory
from twopm_flower.chain.solana_identity import Accounts, deployment_at
from twopm_flower.chain.solana_local import DATABASE, SolanaProcess, open_read_only
from twopm_flower.chain.solana_program import PROGRAM_ID, why_not_ours
from twopm_flower.chain.solana_reader import SolanaReader
from twopm_flower.chain.solana_rpc import REQUEST_TIMEOUT_S, Endpoint, SolanaRpc
from twopm_flower.chain.solana_state import read_config
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainError, ConfigError, TransactionReverted
from twopm_flower.records.bundle import Deployment
from twopm_flower.signer.ed25519 import LocalSolanaSigner, SolanaSigner

__all__ = ["SolanaBackend", "SolanaConnector", "SolanaReader", "deploy"]


class SolanaBackend:
    """See :class:`~twopm_flower.chain.backends.ChainBackend`."""

    family = "solana"
    key_kind: KeyKind = "ed25519"

    def open_signer(self, key: Path, *, password_file: Path | None = None) -> LocalSolanaSigner:
        """Return a signer for the account whose key is in a file."""
        return LocalSolanaSigner.from_file(key, password_file=password_file)

    def open_reader(self, chain: ChainSettings) -> SolanaReader:
        """Return a reader of the pinned cluster."""
        return SolanaReader(
            _endpoints(chain), deployment_of(chain), request_timeout_s=chain.timeout_s
        )

    def open_offline(self, chain: ChainSettings) -> SolanaReader | None:
        """Return a reader of a local chain's database, when there is one."""
        folder = chain.devnet_folder
        if folder is None or not (folder / DATABASE).exists():
            return None
        return SolanaReader([open_read_only(folder)], deployment_of(chain))

    def open_connector(self, chain: ChainSettings, signer: SolanaSigner) -> SolanaConnector:
        """Return a connector for the signer's account."""
        return SolanaConnector(
            _endpoints(chain), deployment_of(chain), signer, request_timeout_s=chain.timeout_s
        )

    def deploy(
        self, rpc_url: str, signer: SolanaSigner, *, program: str | None = None
    ) -> Deployment:
        """Initialise the program at an address, or that of a local chain; see :func:`deploy`."""
        if program is None:
            return deploy(rpc_url, signer)
        try:
            key = Pubkey.from_string(program)
        except ValueError as error:
            raise ConfigError(f"{program[:100]!r} is not the address of a program") from error
        return deploy(rpc_url, signer, program=key)

    def local_chain(self, folder: Path, *, port: int = 0) -> SolanaProcess:
        """Return the local chain in a folder, not started."""
        return SolanaProcess(folder, port)


def deploy(
    endpoint: Endpoint,
    signer: SolanaSigner,
    *,
    program: Pubkey = PROGRAM_ID,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
) -> Deployment:
    """Initialise our program, which stands on the cluster already.

    A local chain has it from the start. On another cluster it is placed by Solana's own tool, and
    made unchangeable: ``docs/solana.md`` has the commands.

    Parameters
    ----------
    endpoint : Endpoint
        ``http://`` or ``https://`` address of a node, or one in this process.
    signer : SolanaSigner
        Pays for the config account.
    program : Pubkey
        Where the program stands; the local chain's place by default.
    request_timeout_s : float
        How long one request may take, in seconds.

    Returns
    -------
    Deployment
        To be stored, and handed to everybody who reads.

    Raises
    ------
    ChainError
        The program is not there, is another, or can still be changed.
    WrongChain
        Somebody else initialised it with other values.
    """
    unpinned = SolanaRpc([endpoint], None, timeout_s=request_timeout_s)
    genesis = unpinned.genesis_hash()
    deployment = deployment_at(bytes.fromhex(genesis[2:]), program)
    rpc = SolanaRpc([endpoint], genesis, timeout_s=request_timeout_s)
    accounts, at = SolanaAccounts(rpc, program), Accounts(program)
    reason = why_not_ours(accounts.info(program), accounts.info)
    if reason is not None:
        raise ChainError(
            f"{program} at {rpc.name} {reason}",
            hint="Deploy the packaged program first, as docs/solana.md says, and name its address.",
        )
    account = SolanaAccount(rpc, accounts, SolanaHistory(rpc, program), signer)
    if accounts.one(at.config, read_config) is None:
        try:
            account.transact("initialise", [Instructions(at, account.key).initialise(deployment)])
        except TransactionReverted as error:
            # Somebody was faster; whether with the right values is checked below.
            if error.error_name != "AlreadyInitialised":
                raise
    SolanaReader([endpoint], deployment, request_timeout_s=request_timeout_s).check()
    return deployment


def _endpoints(chain: ChainSettings) -> Sequence[str]:
    return (chain.rpc_url, *chain.fallback_rpc_urls)
