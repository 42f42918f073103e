"""Finding a model family by the name under which it is registered."""

from importlib.metadata import entry_points
from typing import Final

from twopm_flower.errors import ConfigError
from twopm_flower.models.base import Model

ENTRY_POINT_GROUP: Final = "twopm_flower.models"


def model_names() -> tuple[str, ...]:
    """Return the names of all registered model families, sorted."""
    return tuple(sorted(entry_points(group=ENTRY_POINT_GROUP).names))


def create_model(name: str, n_features: int) -> Model:
    """Return the model family `name` for rows of `n_features` features.

    Raises
    ------
    ConfigError
        No such family, `n_features` below 1, or what is registered is not a model.
    """
    found = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not found:
        raise ConfigError(
            f"There is no model {name!r}.",
            hint=f"Choose one of: {', '.join(model_names())}.",
        )
    model = next(iter(found)).load()(n_features)
    if not isinstance(model, Model):
        raise ConfigError(
            f"What is registered as model {name!r} is not a model.",
            hint=f"Register a callable that returns a Model under {ENTRY_POINT_GROUP}.",
        )
    return model
