"""The server's side of the showcase: the initial model, the strategy, the hyperparameters."""

from typing import Any, cast, get_args

from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedProx

from twopm_flower.config import load_settings
from twopm_flower.datasets.features import FeatureEncoder
from twopm_flower.errors import ConfigError
from twopm_flower.federated import EncryptedAggregation, SimulationOptions
from twopm_flower.federated.home import NodeHome
from twopm_flower.models.logistic_regression import LogisticRegression
from twopm_flower.node.coordinate import load_initial_model
from twopm_flower.records.terms import TrustMode

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for the configured number of rounds."""
    run = context.run_config
    base = strategy_of(run)
    strategy = EncryptedAggregation(
        base,
        simulation=SimulationOptions(
            trust_mode=trust_mode(run),
            clip=float(run["clip"]),
            min_contributors=int(run["min-contributors"]),
            colluders=int(run["colluders"]),
        ),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(
            {name: Array(value) for name, value in first_model(run).items()}
        ),
        num_rounds=int(run["rounds"]),
        train_config=ConfigRecord(train_config(run)),
    )


def strategy_of(run: Any) -> FedAvg:
    """Return the base strategy that the run configuration names."""
    needed = int(run["min-contributors"])
    mu = float(run["proximal-mu"])
    base = FedProx(proximal_mu=mu) if mu > 0 else FedAvg()
    base.min_train_nodes = base.min_evaluate_nodes = base.min_available_nodes = needed
    return base


def trust_mode(run: Any) -> TrustMode:
    """Return the trust mode that the run configuration names.

    Raises
    ------
    ConfigError
        There is no such mode.
    """
    for mode in get_args(TrustMode):
        if run["trust-mode"] == mode:
            return cast(TrustMode, mode)
    raise ConfigError(
        f"trust-mode {run['trust-mode']!r} is not known", hint=f"Choose from {get_args(TrustMode)}."
    )


def first_model(run: Any) -> dict[str, Any]:
    """Return what training starts from: the model of the task, or one of the configuration."""
    settings = load_settings()
    if settings.task is None:
        return initial_model(run)
    return load_initial_model(NodeHome(settings.home).task(settings.task))


def initial_model(run: Any) -> dict[str, Any]:
    """Return the public initial model of a run configuration."""
    encoder = FeatureEncoder(str(run["setup"]), str(run["target"]))
    return LogisticRegression(encoder.n_features).initial(int(run["seed"]))


def train_config(run: Any) -> dict[str, Any]:
    """Return the hyperparameters that nodes are told, and that a task's terms pin."""
    return {name: run[name] for name in ("epochs", "lr", "batch-size", "l2", "seed")}
