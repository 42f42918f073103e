"""An initial model from a file: for a task that goes on from another one's model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from twopm_flower.errors import ConfigError

_HINT = "'twopm model export' of a task with the same app and features writes one that fits."


def read_initial_model(
    path: Path, like: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the arrays of a safetensors file, as a model of the kind that is trained.

    The model becomes public with the task: everybody who is to check it must have it.

    Parameters
    ----------
    path : Path
        As ``twopm model export`` writes it.
    like : mapping of str to ndarray of float32
        The arrays that the app starts from otherwise: names, shapes and order are theirs.

    Returns
    -------
    dict of str to ndarray of float32
        In the order of `like`.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds another kind of model.
    """
    try:
        stored = load(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the initial model {path} cannot be read: {error.strerror}", hint=_HINT
        ) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"the initial model {path} is no safetensors file: {error}", hint=_HINT
        ) from error
    if sorted(stored) != sorted(like):
        raise ConfigError(
            f"the initial model {path} has the arrays {sorted(stored)}, the app trains "
            f"{sorted(like)}",
            hint=_HINT,
        )
    for name, expected in like.items():
        array = stored[name]
        if (array.shape, array.dtype) != (expected.shape, np.dtype(np.float32)):
            raise ConfigError(
                f"array {name!r} of the initial model {path} is {array.dtype} of shape "
                f"{array.shape}; the app trains float32 of shape {expected.shape}",
                hint=_HINT,
            )
        if not np.isfinite(array).all():
            raise ConfigError(
                f"array {name!r} of the initial model {path} has values that are not finite",
                hint="Start from a model of an earlier round.",
            )
    return {name: stored[name] for name in like}
