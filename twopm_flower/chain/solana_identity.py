"""Who is who on Solana: chain ids, and addresses for keys, programs and accounts.

``docs/solana.md`` says how each is computed, and why: statements are EIP-712 on every chain.
"""

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey

from twopm_flower.chain.calls import hexadecimal
from twopm_flower.errors import ChainError
from twopm_flower.records.bundle import Deployment

LARGEST_CHAIN_ID = 2**53 - 1
SIGNATURE_BYTES = 64


def account_address(key: bytes) -> str:
    """Return the EIP-55 address that stands for a 32-byte public key."""
    return _address(b"twopm-flower/solana/account/v1" + key)


def chain_id_of(genesis_hash: bytes) -> int:
    """Return the number that stands for a cluster in statements, from 1 to 2^53 - 1."""
    digest = keccak(b"twopm-flower/solana/chain/v1" + genesis_hash)
    return 1 + int.from_bytes(digest[:8]) % LARGEST_CHAIN_ID


def deployment_at(genesis_hash: bytes, program: Pubkey) -> Deployment:
    """Return how statements name a program on a cluster.

    Parameters
    ----------
    genesis_hash : bytes
        The cluster's, 32 bytes.
    program : Pubkey
        The program.
    """

    def registry(name: str) -> str:
        return _address(f"twopm-flower/solana/{name}-registry/v1".encode() + bytes(program))

    return Deployment(
        family="solana",
        chain_id=chain_id_of(genesis_hash),
        genesis_hash="0x" + genesis_hash.hex(),
        program=str(program),
        node_registry=registry("node"),
        task_registry=registry("task"),
        data_registry=registry("data"),
        receipt_registry=registry("receipt"),
    )


def program_of(deployment: Deployment) -> Pubkey:
    """Return the program of a deployment.

    Raises
    ------
    ChainError
        It names none.
    """
    try:
        return Pubkey.from_string(deployment.program)
    except ValueError as error:
        raise ChainError(
            f"{deployment.program!r} is not the address of a Solana program",
            hint="Set the chain's program to the base58 address at which it was deployed.",
        ) from error


def task_id_of(chain_id: int, program: Pubkey, coordinator: bytes, counter: int) -> str:
    """Return the identifier of a coordinator's task; `counter` is from 0."""
    digest = keccak(
        b"twopm-flower/solana/task/v1"
        + chain_id.to_bytes(8)
        + bytes(program)
        + coordinator
        + counter.to_bytes(8)
    )
    return "0x" + digest.hex()


class Accounts:
    """The addresses of a program's accounts.

    Parameters
    ----------
    program : Pubkey
        The program.
    """

    def __init__(self, program: Pubkey) -> None:
        self.program = program
        self.config = self._derived(b"config")

    def node(self, node: str) -> Pubkey:
        """Return where a node's registration is kept."""
        return self._derived(b"node", address_bytes(node))

    def dataset(self, node: str, dataset: str) -> Pubkey:
        """Return where the last version of a node's dataset is kept."""
        return self._derived(b"dataset", address_bytes(node), hexadecimal(dataset, 32))

    def coordinator(self, key: bytes) -> Pubkey:
        """Return where a coordinator's tasks are counted."""
        return self._derived(b"coordinator", key)

    def task(self, task_id: str) -> Pubkey:
        """Return where a task is kept."""
        return self._derived(b"task", hexadecimal(task_id, 32))

    def member(self, task_id: str, node: str) -> Pubkey:
        """Return where a node's membership is kept."""
        return self._derived(b"member", hexadecimal(task_id, 32), address_bytes(node))

    def tally(self, statement_digest: bytes) -> Pubkey:
        """Return where signatures of one statement are collected."""
        return self._derived(b"tally", statement_digest)

    def anchor(self, issuer: bytes, root: str) -> Pubkey:
        """Return where an issuer's batch of receipts is kept."""
        return self._derived(b"anchor", issuer, hexadecimal(root, 32))

    def _derived(self, *seeds: bytes) -> Pubkey:
        return Pubkey.find_program_address(list(seeds), self.program)[0]


def address_bytes(address: str) -> bytes:
    """Return the 20 bytes of an EIP-55 address; ChainError for anything else."""
    try:
        if to_checksum_address(address) != address:
            raise ChainError(f"{address[:100]!r} is not written as EIP-55 says")
    except ValueError as error:
        raise ChainError(f"{address[:100]!r} is not an address") from error
    return bytes.fromhex(address[2:])


def address_text(address: bytes) -> str:
    """Return 20 bytes as an EIP-55 address."""
    return str(to_checksum_address(address))


def hash_of(base58: str) -> Hash:
    """Return the hash of 32 bytes that base58 stands for; ValueError when it is none."""
    try:
        return Hash.from_string(base58)
    except ParseHashError as error:
        raise ValueError(f"{base58[:60]!r} is no hash") from error


def hash_text(base58: str) -> str:
    """Return a base58 hash of 32 bytes as ``0x`` and hexadecimal digits; ValueError if none."""
    return "0x" + bytes(hash_of(base58)).hex()


def _address(preimage: bytes) -> str:
    return address_text(keccak(preimage)[12:])
