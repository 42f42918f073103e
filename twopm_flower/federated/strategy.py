"""`EncryptedAggregation`: a Flower strategy that adds updates which it cannot read."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError, QuorumError, StrategyRefused
from twopm_flower.federated import wire
from twopm_flower.federated.base_strategy import require_linear
from twopm_flower.federated.callbacks import RoundCallback, records_on_chain
from twopm_flower.federated.flower_internals import log_as_flower
from twopm_flower.federated.live_run import LiveRun, log_manifest, means_of
from twopm_flower.federated.prepared import SimulationOptions
from twopm_flower.federated.replies import bare, parse_reply, wait_for_nodes
from twopm_flower.federated.run_store import RoundTiming, RunStore, Timings, with_chain_records
from twopm_flower.federated.server_run import ServerRun
from twopm_flower.federated.setup import prepare
from twopm_flower.federated.wire_fields import blob
from twopm_flower.privacy.isolated import IsolatedBackend
from twopm_flower.verify.expanded import encode_expanded

log = logging.getLogger(__name__)


class EncryptedAggregation(Strategy):
    """Wraps a linear strategy so that it works on ciphertexts, with every round on record.

    The wrapped strategy chooses the nodes and their configuration. This one sends the
    aggregate of the last round as a ciphertext, checks each encrypted update that comes back,
    adds them, commits to the sum in a manifest, has the nodes sign fingerprints of what they
    sent, and keeps a bundle that anyone can verify. It never holds a key: the arrays of its
    :class:`~flwr.serverapp.strategy.Result` are ciphertexts, and the model is with the nodes.

    Parameters
    ----------
    base : FedAvg
        ``FedAvg``, ``FedProx`` or another subclass that keeps FedAvg's weighted mean.
    task : str, optional
        The task to run, as created by ``twopm task create``; ``$TWOPM_TASK`` by default.
        In simulation a task is made on the spot when none is given.
    home : Path, optional
        The coordinator's home; ``$TWOPM_HOME`` by default.
    callbacks : sequence of RoundCallback
        Called in each round, after the chain recorder.
    simulation : SimulationOptions, optional
        Terms of a task that is made on the spot.

    Raises
    ------
    StrategyRefused
        The base strategy does more than a weighted mean.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> strategy = EncryptedAggregation(FedAvg(min_available_nodes=3))
    """

    def __init__(
        self,
        base: FedAvg,
        *,
        task: str | None = None,
        home: Path | None = None,
        callbacks: Sequence[RoundCallback] = (),
        simulation: SimulationOptions | None = None,
    ) -> None:
        super().__init__()
        require_linear(base)
        self.base = base
        self._task = task
        self._home = home
        self._callbacks = tuple(callbacks)
        self._simulation = simulation or SimulationOptions()
        self._live: LiveRun | None = None

    def summary(self) -> None:
        """Log what this strategy and the wrapped one do."""
        log.info("\t├──> Encrypted aggregation: the server adds ciphertexts and holds no key")
        self.base.summary()

    # --- Flower's five methods -----------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the nodes that the base strategy samples to open the last round and train."""
        live = self._require_live()
        messages = list(self.base.configure_train(server_round, ArrayRecord(), config, grid))
        live.asked = tuple(message.metadata.dst_node_id for message in messages)
        order = live.run.train_order(server_round, live.attempt)
        return self._addressed(messages, order)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the valid updates; the arrays returned are the sum, still encrypted."""
        live = self._require_live()
        replies = list(replies)
        parsed = [parse_reply(message, wire.parse_train_reply) for message in replies]
        aggregate, flower_nodes = live.run.accept_train(
            server_round,
            live.attempt,
            parsed,
            asked=live.asked,
            run_config=live.prepared.run_config,
        )
        for update in aggregate.updates:
            context = live.run.task.frame(server_round, live.attempt, update.statement.node)
            frame = encode_expanded(context, update.ciphertext, live.run.task.parameters.backend)
            live.store.save_ciphertext(update.statement.statement.update_digest, frame)
        live.upload_bytes = {u.statement.node: u.upload_bytes for u in aggregate.updates}
        live.download_bytes = len(aggregate.frame)
        for callback in live.callbacks:
            callback.manifest_committed(aggregate.manifest)
        log_manifest(aggregate.manifest)
        good = [m for m in replies if m.metadata.src_node_id in flower_nodes]
        self.base.aggregate_train(server_round, [bare(message) for message in good])
        arrays = ArrayRecord({"aggregate": blob(aggregate.frame, wire.AGGREGATE_STYPE)})
        sums = live.run.opened_metrics(server_round - 1) if server_round > 1 else None
        if sums is not None:
            live.result.train_metrics_clientapp[server_round - 1] = MetricRecord({**sums})
        return arrays, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Show the manifest to all nodes, and ask for fingerprints and an evaluation."""
        live = self._require_live()
        order = live.run.evaluate_order()
        nodes = list(grid.get_node_ids())
        if not live.run.task.shares_keys:
            return self._messages(order, MessageType.EVALUATE, nodes)
        # Only here do messages of one exchange differ: each node gets the shares sealed to it.
        return [
            message
            for node in nodes
            for message in self._messages(
                replace(order, shares=live.run.shares_for(node)), MessageType.EVALUATE, [node]
            )
        ]

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Collect the fingerprints; return the evaluation of the model before this round."""
        live = self._require_live()
        parsed = [parse_reply(message, wire.parse_evaluate_reply) for message in replies]
        live.missing = live.run.accept_evaluate(parsed)
        if live.missing:
            return None
        sums = live.run.evaluation_sums(server_round - 1)
        return None if sums is None else means_of(sums)

    # --- the loop ------------------------------------------------------------------------

    def start(  # noqa: PLR0917  # Flower's own signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run all rounds and the closing exchange.

        Parameters
        ----------
        grid : Grid
            Where the nodes are.
        initial_arrays : ArrayRecord
            The public initial model, float32 but for the arrays that are excluded.
        num_rounds : int
            How many rounds; a task created before fixes it.
        timeout : float, optional
            Bound of one exchange, in seconds; the coordinator's settings by default.
        train_config, evaluate_config : ConfigRecord, optional
            What the app is told; nodes accept what the task's terms say and nothing else.
        evaluate_fn : callable, optional
            Refused: the server cannot read the model.

        Returns
        -------
        Result
            Train metrics by round (sums), evaluation metrics by the round of the evaluated
            model (0 is the initial model), and the last aggregate, still encrypted.

        Raises
        ------
        QuorumError
            Too few nodes, valid replies or equal models.
        ChainUnavailable
            The run is complete but could not be recorded on chain.
        """
        if evaluate_fn is not None:
            raise StrategyRefused(
                "evaluate_fn needs the plain model, and this server cannot read it",
                hint="Evaluate on the nodes: their counts are opened as sums.",
            )
        log_as_flower()
        settings = load_settings(self._home)
        prepared = prepare(
            grid,
            settings=settings,
            task=self._task or settings.task,
            initial=wire.plain_arrays(initial_arrays),
            rounds=num_rounds,
            train_config=self._base_config(train_config),
            evaluate_config=dict(evaluate_config or {}),
            options=self._simulation,
        )
        store = RunStore(prepared.runs_folder / prepared.task.task_id)
        isolated = IsolatedBackend(prepared.task.parameters)
        live = LiveRun(
            prepared=prepared,
            run=ServerRun(
                task=prepared.task,
                deployment=prepared.deployment,
                key_deal=prepared.key_deal,
                initial=wire.plain_arrays(initial_arrays),
                late_limit=settings.coordinator.late_limit,
                expand=isolated.expand,
            ),
            store=store,
            settings=settings,
            callbacks=(prepared.recorder(store.outbox_path, settings), *self._callbacks),
            timeout=timeout,
        )
        self._live = live
        self.summary()
        log.info("task %s, trust mode %s", prepared.task.task_id, prepared.task.terms.trust_mode)
        for callback in live.callbacks:
            callback.run_started()
        try:
            if prepared.task.shares_keys:
                self._prepare(grid)
            for round_ in range(1, prepared.task.terms.rounds + 1):
                self._run_round(grid, round_)
            self._close(grid)
        finally:
            for callback in reversed(live.callbacks):
                callback.run_ended()
            isolated.close()
            prepared.close()
            self._live = None
        return live.result

    def _prepare(self, grid: Grid) -> None:
        """Ask all nodes for the keys that shares of the first round are sealed to."""
        live = self._require_live()
        coordinator = live.settings.coordinator
        wait_for_nodes(grid, live.run.task.fewest_contributors, coordinator.nodes_wait_s)
        messages = self._messages(
            live.run.prepare_order(), MessageType.EVALUATE, list(grid.get_node_ids())
        )
        replies = self._exchange(grid, messages, coordinator.evaluate_timeout_s)
        live.run.accept_prepare([parse_reply(m, wire.parse_prepare_reply) for m in replies])

    def _run_round(self, grid: Grid, round_: int) -> None:
        live = self._require_live()
        terms = live.run.task.terms
        coordinator = live.settings.coordinator
        log.info("[ROUND %d/%d]", round_, terms.rounds)
        for callback in live.callbacks:
            callback.before_round(round_)
        for attempt in range(1, coordinator.max_attempts + 1):
            live.attempt = attempt
            needed = max(live.run.task.fewest_contributors, self.base.min_available_nodes)
            wait_for_nodes(grid, needed, coordinator.nodes_wait_s)
            started = time.monotonic()
            train_replies = self._exchange(
                grid,
                self.configure_train(
                    round_, ArrayRecord(), ConfigRecord(dict(terms.train_config)), grid
                ),
                coordinator.train_timeout_s,
            )
            trained = time.monotonic()
            arrays, _ = self.aggregate_train(round_, train_replies)
            added = time.monotonic()
            if arrays is not None:
                live.result.arrays = arrays
            evaluate_replies = self._exchange(
                grid,
                self.configure_evaluate(round_, ArrayRecord(), ConfigRecord(), grid),
                coordinator.evaluate_timeout_s,
            )
            evaluated = time.monotonic()
            metrics = self.aggregate_evaluate(round_, evaluate_replies)
            if live.missing:
                log.warning(
                    "round %d, attempt %d is spoiled by %s; a new attempt without them",
                    round_,
                    attempt,
                    ", ".join(live.missing),
                )
                continue
            if metrics is not None:
                live.result.evaluate_metrics_clientapp[round_ - 1] = metrics
            live.timings.append(
                RoundTiming(
                    round=round_,
                    attempts=attempt,
                    upload_bytes=live.upload_bytes,
                    download_bytes=live.download_bytes,
                    train_s=round(trained - started, 3),
                    evaluate_s=round(evaluated - added, 3),
                    own_s=round(added - trained, 3),
                )
            )
            self._save(live)
            for callback in live.callbacks:
                callback.round_completed(live.run.bundle())
            return
        raise QuorumError(
            f"round {round_}: no attempt of {coordinator.max_attempts} was completed",
            hint="Look at the nodes' logs: survivors vanished between train and evaluate.",
        )

    def _close(self, grid: Grid) -> None:
        live = self._require_live()
        log.info("[CLOSING]")
        messages = self._messages(
            live.run.close_order(), MessageType.EVALUATE, list(grid.get_node_ids())
        )
        replies = self._exchange(grid, messages, live.settings.coordinator.evaluate_timeout_s)
        parsed = [parse_reply(message, wire.parse_evaluate_reply) for message in replies]
        last = live.run.task.terms.rounds
        statement, signatures = live.run.accept_close(parsed)
        sums = live.run.opened_metrics(last)
        if sums is not None:
            live.result.train_metrics_clientapp[last] = MetricRecord({**sums})
        evaluated = live.run.evaluation_sums(last)
        if evaluated is not None:
            live.result.evaluate_metrics_clientapp[last] = means_of(evaluated)
        self._save(live)
        for callback in live.callbacks:
            callback.run_completed(live.run.bundle(), statement, signatures)
        self._save(live, anchored=True)
        log.info("final model %s, signed by %d nodes", statement.model_digest, len(signatures))
        log.info("bundle: %s", live.store.bundle_path)

    def _save(self, live: LiveRun, *, anchored: bool = False) -> None:
        bundle = live.run.bundle()
        if anchored:
            records, final = records_on_chain(live.prepared.connector, bundle.task_id)
            bundle = with_chain_records(bundle, records, final)
        live.store.save_bundle(bundle)
        live.store.save_timings(Timings(rounds=tuple(live.timings)))

    # --- details -------------------------------------------------------------------------

    def _require_live(self) -> LiveRun:
        if self._live is None:
            raise ConfigError(
                "no run is under way", hint="Call start(); it drives the other methods."
            )
        return self._live

    def _base_config(self, train_config: ConfigRecord | None) -> dict[str, Any]:
        config = dict(train_config or {})
        if hasattr(self.base, "proximal_mu"):
            config["proximal-mu"] = self.base.proximal_mu
        return config

    def _addressed(self, messages: list[Message], order: Any) -> list[Message]:
        content = self._content(order)
        for message in messages:
            message.content = content
        return messages

    def _messages(self, order: Any, kind: str, nodes: list[int]) -> list[Message]:
        content = self._content(order)
        return [Message(content, dst_node_id=node, message_type=kind) for node in nodes]

    def _content(self, order: Any) -> RecordDict:
        return wire.order_content(
            order,
            arrays_key=self.base.arrayrecord_key,
            config_key=self.base.configrecord_key,
        )

    def _exchange(self, grid: Grid, messages: Iterable[Message], default_s: float) -> list[Message]:
        timeout = self._require_live().timeout or default_s
        return list(grid.send_and_receive(list(messages), timeout=timeout))
