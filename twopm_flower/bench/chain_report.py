"""The outcome of ``twopm bench chain``: records with a stable JSON form."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from twopm_flower.bench.machine import Machine


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundWork(_Record):
    """What one record cost in a task of so many nodes.

    Attributes
    ----------
    nodes : int
    first, later : int
        Gas, or what the chain counts work in, of the first record and of the second.
    """

    nodes: int
    first: int
    later: int


class ChainFigures(_Record):
    """What one kind of chain took.

    Attributes
    ----------
    family : str
    endpoint : str
        What answered.
    latencies_s : tuple of float
        From queueing a record to its inclusion in a block, one after the other, in seconds.
    throughput_per_s : float
        Records in a second, delivered by several processes at once.
    processes, records : int
        How many processes, and how many records each of them delivered.
    work : tuple of RoundWork
        Work of a record against the number of nodes.
    """

    family: str
    endpoint: str
    latencies_s: tuple[float, ...]
    throughput_per_s: float
    processes: int
    records: int
    work: tuple[RoundWork, ...]


class SignerFigures(_Record):
    """What it takes to sign a transaction, in seconds each.

    Attributes
    ----------
    local_s : tuple of float
        With a key in this process.
    isolated_s : tuple of float
        By the isolated signer over a unix socket, policy, audit log and comparison included.
    """

    local_s: tuple[float, ...]
    isolated_s: tuple[float, ...]


class ChainReport(_Record):
    """A whole run.

    Attributes
    ----------
    machine : Machine
    date : str
        UTC, ISO 8601.
    command : str
    chains : tuple of ChainFigures
    signer : SignerFigures
    skipped : dict of str to str
        Kinds of chain that could not be measured, and why.
    """

    format: Literal["twopm-flower/bench-chain/v1"] = "twopm-flower/bench-chain/v1"
    machine: Machine
    date: str
    command: str
    chains: tuple[ChainFigures, ...]
    signer: SignerFigures | None
    skipped: dict[str, str]

    def to_json(self) -> str:
        """Return the JSON form."""
        return self.model_dump_json(indent=2) + "\n"
