"""What turns a linear model's scores into predictions: identity, sigmoid or softmax."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError
from twopm_flower.records.inference import LinkName

FAMILY_LINKS: Final[dict[str, LinkName]] = {
    "linear-regression": "identity",
    "logistic-regression": "sigmoid",
}
"""The link of a model of each family; a logistic regression of several classes has softmax."""

Floats = npt.NDArray[np.float64]


def link_of(family: str, classes: int) -> LinkName:
    """Return the link of a model.

    Parameters
    ----------
    family : str
        The name that the task's terms give its kind of model.
    classes : int
        How many scores it has.

    Raises
    ------
    ConfigError
        If no link of that family is known.
    """
    link = FAMILY_LINKS.get(family)
    if link is None:
        known = ", ".join(sorted(FAMILY_LINKS))
        raise ConfigError(
            f"Private predictions by models of the family {family!r} are unknown.",
            hint=f"Families that are linear up to a known link: {known}.",
        )
    return "softmax" if link == "sigmoid" and classes > 1 else link


def apply_link(link: LinkName, scores: npt.NDArray[Any]) -> Floats:
    """Return predictions.

    Parameters
    ----------
    link : {"identity", "sigmoid", "softmax"}
    scores : ndarray of float, shape (n, K)

    Returns
    -------
    ndarray of float64, shape (n, K)
        For ``sigmoid`` the probability of the second class, for ``softmax`` of each.

    Raises
    ------
    ConfigError
        If the link is unknown.
    """
    values = np.asarray(scores, np.float64)
    if link == "identity":
        return values
    if link == "sigmoid":
        # Of the two forms the one whose power is at most 1: nothing overflows.
        power = np.exp(-np.abs(values))
        return np.where(values >= 0, 1.0, power) / (1.0 + power)
    if link == "softmax":
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    raise ConfigError(f"There is no link {link!r}.", hint="identity, sigmoid or softmax.")
