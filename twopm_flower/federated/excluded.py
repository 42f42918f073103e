"""Arrays that every node keeps to itself: frozen layers, statistics of batch normalisation.

They are named by patterns in the task's terms. Their initial values are public and come with
the initial model; from then on each node has values of its own, which never leave it. The app
sees the whole model: what is federated from the last opened sum, the rest as it left it.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError, ProtocolViolation
from twopm_flower.federated.exchange import Arrays
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import ZERO_DIGEST, tagged_digest
from twopm_flower.records.terms import is_excluded


def split(arrays: Mapping[str, npt.NDArray[Any]], patterns: Sequence[str]) -> tuple[Arrays, Arrays]:
    """Return the arrays that are federated and those that are not, each in their order."""
    federated: Arrays = {}
    local: Arrays = {}
    for name, array in arrays.items():
        (local if is_excluded(name, patterns) else federated)[name] = array
    return federated, local


def split_initial(
    arrays: Mapping[str, npt.NDArray[Any]], patterns: Sequence[str]
) -> tuple[Arrays, Arrays]:
    """Return what `split` does of the initial model that a task is made for.

    Raises
    ------
    ConfigError
        A pattern names nothing, nothing is left to train together, or an array that is left
        holds no float32.
    """
    idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in arrays)]
    if idle:
        raise ConfigError(
            f"the patterns {idle} of excluded arrays match none of {list(arrays)}",
            hint="Patterns match whole names: '*.running_mean' or 'backbone.*'.",
        )
    federated, local = split(arrays, patterns)
    if not federated:
        raise ConfigError(f"the patterns {list(patterns)} exclude the whole model")
    for name, array in federated.items():
        if array.dtype != np.float32:
            raise ConfigError(
                f"array {name!r} of the initial model is {array.dtype}; only float32 is trained",
                hint="Convert it, or exclude it by its name: excluded=[...].",
            )
    return federated, local


def merged(
    federated: Mapping[str, npt.NDArray[Any]], local: Mapping[str, npt.NDArray[Any]]
) -> Arrays:
    """Return the whole model, as the app sees it."""
    return {**federated, **local}


def local_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the digest of the initial values of excluded arrays; zero where there are none.

    The hashed bytes are a canonical list of names, dtypes and shapes, sorted by name, with its
    length in 8 bytes before it, and then the values of each array in C order, little-endian.
    """
    if not arrays:
        return ZERO_DIGEST
    names = sorted(arrays)
    values = [little_endian(arrays[name]) for name in names]
    described = canonical_bytes(
        [
            {"dtype": array.dtype.str, "name": name, "shape": list(array.shape)}
            for name, array in zip(names, values, strict=True)
        ]
    )
    return tagged_digest(
        "local-model/v1",
        len(described).to_bytes(8, "little"),
        described,
        *(array.tobytes() for array in values),
    )


def check_local(arrays: Mapping[str, npt.NDArray[Any]], agreed: str) -> None:
    """Check the initial values of excluded arrays that a server sent.

    Other values than the others have could make this node's update give away its data.

    Raises
    ------
    ProtocolViolation
        They are not the agreed ones.
    """
    digest = local_digest(arrays)
    if digest != agreed:
        raise ProtocolViolation(
            f"the initial values of the excluded arrays have digest {digest}, agreed was {agreed}"
        )


def kept_values(
    trained: Mapping[str, npt.NDArray[Any]], before: Mapping[str, npt.NDArray[Any]]
) -> Arrays:
    """Return the values to keep of what the app returned, where it had `before`.

    An array that the app did not return stays as it was.

    Raises
    ------
    ConfigError
        The app returned an array in another shape or dtype, or one that it was not given.
    """
    for name, array in trained.items():
        old = before.get(name)
        if old is None or (old.shape, old.dtype) != (array.shape, array.dtype):
            had = "none" if old is None else f"{old.dtype} {old.shape}"
            raise ConfigError(
                f"the app returned the excluded array {name!r} as {array.dtype} {array.shape}; "
                f"it was given {had}",
                hint="Return the arrays that the message carries, with the same names.",
            )
    return {**before, **trained}


def little_endian(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array with little-endian values."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
