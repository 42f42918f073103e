"""The server's side: an ordinary FedAvg, wrapped so that it adds what it cannot read."""

import logging

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from encrypted_app.task import initial_model
from twopm_flower.federated import EncryptedAggregation

app = ServerApp()
log = logging.getLogger("flwr")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the configured number of rounds and log the accuracy of each model."""
    run = context.run_config
    strategy = EncryptedAggregation(FedAvg(min_train_nodes=3, min_available_nodes=3))
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial_model().state_dict()),
        num_rounds=int(run["num-server-rounds"]),
        train_config=ConfigRecord(
            {"local-epochs": run["local-epochs"], "lr": run["learning-rate"]}
        ),
    )
    for round_, metrics in sorted(result.evaluate_metrics_clientapp.items()):
        log.info("round %d: accuracy %.3f", round_, metrics["mean-correct"])
