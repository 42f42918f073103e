"""The server's side of the made-up app."""

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from twopm_flower.bench import round_app
from twopm_flower.federated import EncryptedAggregation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the task's model for its rounds, with all of its nodes."""
    run = context.run_config
    nodes = int(run["nodes"])
    strategy = EncryptedAggregation(
        FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    )
    model = round_app.initial(int(run["parameters"]))
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(value) for name, value in model.items()}),
        num_rounds=int(run["rounds"]),
    )
