"""Where the time of a Flower round goes: the app, our mod, our strategy, the rest."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from twopm_flower.bench.round_report import RoundFigures
from twopm_flower.federated import LocalGrid
from twopm_flower.federated.callbacks import RoundCallback
from twopm_flower.records.bundle import RunBundle


@dataclass
class Clock:
    """Adds up seconds within a round.

    Attributes
    ----------
    rounds : list of RoundFigures
        Of the rounds that are over.
    app_s : float
        Within the app's own functions, all nodes together.
    nodes_s : float
        Within the nodes, mods included, all nodes together.
    exchange_s : float
        Within exchanges with the nodes.
    """

    rounds: list[RoundFigures] = field(default_factory=list)
    app_s: float = 0.0
    nodes_s: float = 0.0
    exchange_s: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Begin a round."""
        self.app_s = self.nodes_s = self.exchange_s = 0.0
        self._started = time.perf_counter()

    def stop(self) -> None:
        """End a round, and begin the next one."""
        wall = time.perf_counter() - self._started
        self.rounds.append(
            RoundFigures(
                round=len(self.rounds) + 1,
                wall_s=wall,
                app_s=self.app_s,
                mod_s=self.nodes_s - self.app_s,
                strategy_s=wall - self.exchange_s,
            )
        )
        self.start()

    def inner_mod(self, msg: Message, ctxt: Context, call_next: ClientAppCallable) -> Message:
        """Time the app; a mod that goes behind all others."""
        started = time.perf_counter()
        try:
            return call_next(msg, ctxt)
        finally:
            self.app_s += time.perf_counter() - started


class TimedGrid(LocalGrid):
    """A local grid that tells a clock how long its nodes take."""

    def __init__(self, clock: Clock, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clock = clock

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return the replies."""
        sent = list(messages)
        started = time.perf_counter()
        replies = list(super().send_and_receive(sent, timeout=timeout))
        self._clock.exchange_s += time.perf_counter() - started
        return replies

    def deliver(self, message: Message) -> Message | None:
        """Run one message through mods and app."""
        started = time.perf_counter()
        try:
            return super().deliver(message)
        finally:
            self._clock.nodes_s += time.perf_counter() - started


class ClockCallback(RoundCallback):
    """Starts the clock with the first round, and stops it after each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def before_round(self, round_: int) -> None:
        """Start with the first round: what comes before it is enrolment."""
        if round_ == 1:
            self._clock.start()

    def round_completed(self, bundle: RunBundle) -> None:
        """Stop when the round is on its way to the chain and saved."""
        self._clock.stop()


class TimedFedAvg(FedAvg):
    """Plain federated averaging, timed."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(**settings)
        self._clock = clock

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Start with the first round."""
        if server_round == 1:
            self._clock.start()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Stop after the metrics are averaged."""
        metrics = super().aggregate_evaluate(server_round, replies)
        self._clock.stop()
        return metrics
