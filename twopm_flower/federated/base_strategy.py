"""Which Flower strategies can be wrapped: those that take a weighted mean and nothing more."""

from flwr.serverapp.strategy import FedAvg

from twopm_flower.errors import StrategyRefused


def require_linear(base: object) -> None:
    """Check that a base strategy aggregates linearly.

    Raises
    ------
    StrategyRefused
        It does more than FedAvg's weighted mean.
    """
    name = type(base).__name__
    if not isinstance(base, FedAvg):
        raise StrategyRefused(
            f"{name} is not built on FedAvg: only a weighted mean can be taken of ciphertexts",
            hint="Wrap FedAvg or FedProx.",
        )
    if type(base).aggregate_train is not FedAvg.aggregate_train:
        raise StrategyRefused(
            f"{name} does more with the updates than FedAvg's weighted mean (adaptive, robust and "
            "compressing strategies have to see each update, or square it)",
            hint="Wrap FedAvg or FedProx.",
        )
