"""One node at one moment of an honest run: whatever is shown to it then is answered at once."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from federation import Federation, LyingGrid, Node, Order
from flwr.app import Message, MessageType
from flwr.clientapp import ClientApp
from tiny_app import RUN_CONFIG, tiny_app

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import EvaluateOrder, TrainOrder, TrainReply
from twopm_flower.federated.home import NodeHome


@dataclass
class Moment:
    """A node's home as it was when an order arrived, and that order."""

    node: Node
    order: Order

    def copy(self, folder: Path) -> "Moment":
        """Return the same moment in a home of its own, which a test may change."""
        home = folder / "copy"
        shutil.copytree(self.node.home.path, home)
        return Moment(Node(self.node.index, NodeHome(home), self.node.task_id), self.order)

    def show(
        self,
        order: Order,
        folder: Path,
        app: ClientApp | None = None,
        *,
        message_type: str | None = None,
    ) -> tuple[Message, Node]:
        """Show a copy of the node another order, and return its reply and the copy."""
        node = self.copy(folder).node
        home = node.home.path
        config = {"partition-id": node.index, "num-partitions": 4, "twopm-home": str(home)}
        grid = LyingGrid(app or tiny_app(), [config], dict(RUN_CONFIG))
        honest = MessageType.TRAIN if isinstance(order, TrainOrder) else MessageType.EVALUATE
        message = Message(
            wire.order_content(order, arrays_key="arrays", config_key="config"),
            dst_node_id=1,
            message_type=message_type or honest,
        )
        message.metadata.__dict__["_message_id"] = "shown"
        reply = grid.deliver(message)
        assert reply is not None
        return reply, node


@dataclass
class RecordedRun:
    """An honest run of two rounds, with the moments and replies that tests start from."""

    federation: Federation
    moments: dict[tuple[str, int], Moment]
    updates: dict[int, TrainReply]

    def at(self, kind: str, round_: int) -> Moment:
        """Return node 0's moment of an exchange."""
        return self.moments[kind, round_]


def record(federation: Federation, folder: Path) -> RecordedRun:
    """Run honestly and keep node 0's home before each exchange, and all updates of round 1."""
    recorded = RecordedRun(federation, {}, {})

    def keep(deliver, message, index):
        order = wire.parse_order(message.content)
        if index == 0:
            match order:
                case TrainOrder(round=round_):
                    key = ("train", round_)
                case EvaluateOrder(manifest=manifest):
                    key = ("evaluate", manifest.round)
                case _:
                    key = ("close", 0)
            home = folder / "-".join(map(str, key))
            shutil.copytree(federation.nodes[0].home.path, home)
            node = Node(0, NodeHome(home), federation.task_id)
            recorded.moments[key] = Moment(node, order)
        reply = deliver(message)
        if isinstance(order, TrainOrder) and order.round == 1:
            recorded.updates[index] = wire.parse_train_reply(reply.content)
        return reply

    federation.make_grid().messages.append(keep)
    federation.run()
    return recorded
