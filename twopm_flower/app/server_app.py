"""The server's side of the showcase: the initial model, the strategy, the hyperparameters."""

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx

from twopm_flower.datasets.features import FeatureEncoder
from twopm_flower.federated import EncryptedAggregation, SimulationOptions
from twopm_flower.models.logistic_regression import LogisticRegression

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the configured number of rounds."""
    run = context.run_config
    base = strategy_of(run)
    strategy = EncryptedAggregation(
        base,
        simulation=SimulationOptions(
            trust_mode=run["trust-mode"],
            clip=float(run["clip"]),
            min_contributors=int(run["min-contributors"]),
        ),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(
            {name: Array(value) for name, value in initial_model(run).items()}
        ),
        num_rounds=int(run["rounds"]),
        train_config=ConfigRecord(train_config(run)),
    )


def strategy_of(run: Any) -> FedAvg:
    """Return the base strategy that the run configuration names."""
    needed = int(run["min-contributors"])
    mu = float(run["proximal-mu"])
    options = {
        "min_train_nodes": needed,
        "min_evaluate_nodes": needed,
        "min_available_nodes": needed,
    }
    return FedProx(proximal_mu=mu, **options) if mu > 0 else FedAvg(**options)


def initial_model(run: Any) -> dict[str, Any]:
    """Return the public initial model of a run configuration."""
    encoder = FeatureEncoder(str(run["setup"]), str(run["target"]))
    return LogisticRegression(encoder.n_features).initial(int(run["seed"]))


def train_config(run: Any) -> dict[str, Any]:
    """Return the hyperparameters that nodes are told, and that a task's terms pin."""
    return {name: run[name] for name in ("epochs", "lr", "batch-size", "l2", "seed")}
