"""Flower apps in one process: for notebooks, comparisons and tests."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from twopm_flower.federated.enrolment import SIMULATION_KEY
from twopm_flower.federated.flower_internals import identify_process

_RUN_IDS = itertools.count(1)


class LocalGrid(Grid):
    """A grid whose nodes run the client app in this process, one after the other.

    Messages go through the real mods and the real app; only Flower's transport is missing.

    Parameters
    ----------
    client_app : ClientApp
        The app of every node.
    node_configs : sequence of mapping
        One node configuration per node, such as
        ``{"partition-id": 0, "num-partitions": 3}``; ``twopm-home`` names a home that was
        set up before, otherwise the node is simulated.
    run_config : mapping
        The run configuration that nodes see.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Any]],
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        self._app = client_app
        self._run_id = next(_RUN_IDS)
        identify_process(self._run_id)
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self.contexts = {
            number: Context(
                run_id=self._run_id,
                node_id=number,
                node_config={SIMULATION_KEY: True, **config},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for number, config in enumerate(node_configs, start=1)
        }

    def set_run(self, run: Run) -> None:
        """Do nothing: a local grid is its own run."""

    @property
    def run(self) -> Run:
        """A description of the run."""
        return Run.create_empty(self._run_id)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message; see Flower's Grid."""
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages at once and keep the replies."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"local-{next(self._ids)}"
            reply = self.deliver(message)
            if reply is not None:
                self._replies[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that there are."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver messages and return the replies; nothing is ever late."""
        return self.pull_messages(self.push_messages(messages))

    def deliver(self, message: Message) -> Message | None:
        """Run one message through the app; an exception becomes an error reply, as in Flower."""
        context = self.contexts.get(message.metadata.dst_node_id)
        if context is None:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
        try:
            return self._app(message, context)
        except Exception as error:  # noqa: BLE001  # what Flower's own runner does
            reason = f"{type(error).__name__}: {error}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
