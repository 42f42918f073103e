"""The node's side: an ordinary ClientApp behind the mod that encrypts its updates."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from encrypted_app import task
from twopm_flower.federated import EncryptionMod

app = ClientApp(mods=[EncryptionMod()])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on this node's rows."""
    model = _received(message)
    x, y = task.load_rows(_partition(context), held_out=False)
    config = message.content.config_records["config"]
    loss = task.train(
        model, x, y, epochs=int(config["local-epochs"]), learning_rate=float(config["lr"])
    )
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(x), "loss": loss}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on this node's held-out rows."""
    x, y = task.load_rows(_partition(context), held_out=True)
    correct, loss = task.evaluate(_received(message), x, y)
    metrics = MetricRecord({"num-examples": len(x), "correct": correct, "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _received(message: Message) -> task.Net:
    model = task.Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return model


def _partition(context: Context) -> int:
    return int(context.node_config.get("partition-id", 0))
