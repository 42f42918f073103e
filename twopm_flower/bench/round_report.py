"""The outcome of ``twopm bench round``: records with a stable JSON form."""

import statistics
from typing import Literal

from pydantic import BaseModel, ConfigDict

from twopm_flower.bench.machine import Machine
from twopm_flower.records.terms import TrustMode


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoundFigures(_Record):
    """Seconds of one round in which the nodes take their turns in one process.

    Attributes
    ----------
    round : int
        From 1. The sum of a round is opened in the next one, so the first opens none.
    wall_s : float
        From the end of the round before to the end of this one.
    app_s : float
        Within the app's own functions, all nodes together.
    mod_s : float
        Within the nodes but outside the app, all nodes together: encryption, checks, records.
    strategy_s : float
        Within the server but outside exchanges: checks, sum, manifest, record, bundle.
    """

    round: int
    wall_s: float
    app_s: float
    mod_s: float
    strategy_s: float

    @property
    def share(self) -> float:
        """The part of the round that mod and strategy take."""
        return (self.mod_s + self.strategy_s) / self.wall_s


class DeployedRound(_Record):
    """One round of a deployment on this machine.

    Attributes
    ----------
    round : int
    wall_s : float
        Both exchanges and what the server did between them.
    own_s : float
        The server's part of it.
    mod_s : float or None
        Within the mods of the slowest node, both exchanges together; None where nodes do not
        measure it.
    """

    round: int
    wall_s: float
    own_s: float
    mod_s: float | None = None


class Deployed(_Record):
    """The same app, deployed.

    Attributes
    ----------
    rounds : tuple of DeployedRound
    overhead_s : float
        What mod and strategy add to a round: the strategy's time as measured in one process,
        and the slowest node's mods. Where nodes do not measure these, they are those of all
        nodes in one process, shared among as many cores as there are.
    share : float
        `overhead_s` over the median round of the deployment.
    """

    rounds: tuple[DeployedRound, ...]
    overhead_s: float
    share: float


class RoundReport(_Record):
    """A whole run.

    Attributes
    ----------
    machine : Machine
    date : str
        UTC, ISO 8601.
    command : str
    app : str
        ``showcase``, or ``network``, the made-up one of `round_app`.
    parameters : int
        Of the model, in fact.
    rows, epochs : int or None
        Training rows of each node and how often a round goes over them; None for the
        showcase, whose data and run configuration say.
    nodes : int
    privacy : str
    encrypted, plain : tuple of RoundFigures
        With this package, and the same app in plain Flower with FedAvg.
    deployed : Deployed or None
    """

    format: Literal["twopm-flower/bench-round/v1"] = "twopm-flower/bench-round/v1"
    machine: Machine
    date: str
    command: str
    app: Literal["showcase", "network"]
    parameters: int
    rows: int | None
    epochs: int | None
    nodes: int
    privacy: TrustMode
    encrypted: tuple[RoundFigures, ...]
    plain: tuple[RoundFigures, ...]
    deployed: Deployed | None = None

    @property
    def share(self) -> float:
        """The part of a round that mod and strategy take: the median of all rounds but the first.

        The first round opens no sum; it counts where it is the only one.
        """
        return statistics.median(figures.share for figures in self.steady)

    @property
    def steady(self) -> tuple[RoundFigures, ...]:
        """The rounds that open the sum of the one before."""
        return self.encrypted[1:] or self.encrypted

    def with_deployment(self, rounds: tuple[DeployedRound, ...]) -> "RoundReport":
        """Return the report with what a deployment of the same app took."""
        at_once = min(self.nodes, self.machine.cores)
        steady = rounds[1:] or rounds
        measured = [figures.mod_s for figures in steady if figures.mod_s is not None]
        mods = measured or [figures.mod_s / at_once for figures in self.steady]
        overhead = statistics.median(mods) + statistics.median(
            figures.strategy_s for figures in self.steady
        )
        wall = statistics.median(figures.wall_s for figures in steady)
        deployed = Deployed(rounds=rounds, overhead_s=overhead, share=overhead / wall)
        return self.model_copy(update={"deployed": deployed})

    def to_json(self) -> str:
        """Return the JSON form."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RoundReport":
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)
