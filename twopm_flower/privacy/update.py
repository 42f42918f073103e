"""From a node's arrays to a ciphertext, and from the opened sum to the mean."""

from collections.abc import Mapping

import numpy as np

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy.backend import Backend, Key
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.layout import Arrays, Integers, Layout, Vector
from twopm_flower.privacy.packing import pack_from, unpack_pieces
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.quantise import mean, quantise
from twopm_flower.privacy.room import room_for


def encrypt_update(
    delta: Arrays,
    metrics: Mapping[str, float],
    *,
    layout: Layout,
    parameters: AdditiveParameters,
    backend: Backend,
    key: Key,
    clip: float,
    samples: int,
    max_samples: int,
) -> tuple[SeededCiphertext, int]:
    """Return a node's update encrypted, and how many of its values were clipped.

    Parameters
    ----------
    delta : mapping of str to ndarray
        The difference to the round's base model, array by array.
    metrics : mapping of str to float
        The metrics of the layout; only their sums over the nodes are ever opened.
    key : SharedKey, OneTimeKey or None
        None for a backend that needs no key.
    clip : float
        Largest magnitude of a value of `delta`.
    samples, max_samples : int
        The node's training rows, and the public bound on it.

    Raises
    ------
    LayoutError
        If arrays or metrics differ from the layout's.
    HeadroomError
        If a value cannot be carried. Nothing was encrypted.
    """
    read, clipped = layout.reader(delta), 0
    totals = layout.quantise_metrics(metrics, limit=parameters.limit)

    def quantised(start: int, stop: int) -> Integers:
        nonlocal clipped
        end = min(stop, layout.array_size)
        if start >= end:
            return totals[start - layout.array_size : stop - layout.array_size]
        weights, beyond = quantise(
            read(start, end),
            clip=clip,
            limit=parameters.limit,
            samples=samples,
            max_samples=max_samples,
        )
        clipped += beyond
        return np.concatenate([weights, totals[: stop - end]]) if end < stop else weights

    coefficients = pack_from(quantised, layout.size, parameters)
    return backend.encrypt(coefficients, key), clipped


def open_aggregate(
    aggregate: Ciphertext,
    *,
    layout: Layout,
    parameters: AdditiveParameters,
    backend: Backend,
    key: Key,
    clip: float,
    samples_total: int,
    max_samples: int,
    contributors: int,
) -> tuple[dict[str, Vector], dict[str, int]]:
    """Return the mean of the `contributors` updates that `aggregate` is the sum of.

    Parameters
    ----------
    samples_total : int
        The sum of the contributors' training rows, as committed on chain.
    contributors : int
        How many updates were added.

    Returns
    -------
    delta : dict of str to ndarray of float64
        The weighted mean of the updates, to be added to the round's base model: the same
        bits on every node.
    metrics : dict of str to int
        The quantised sums: divide by the metric's scale.

    Raises
    ------
    PrivacyError
        If the opened integers cannot be such a sum: a wrong key, or a dishonest update.
    """
    coefficients = backend.decrypt(aggregate, key)
    pieces = unpack_pieces(coefficients, layout.size, parameters, contributors=contributors)
    vector = room_for(layout.array_size).view(np.float64)
    totals = np.empty(len(layout.metrics), np.int64)
    for start, values in pieces:
        weights = values[: max(0, layout.array_size - start)]
        mean(
            weights,
            clip=clip,
            limit=parameters.limit,
            samples_total=samples_total,
            max_samples=max_samples,
            out=vector[start : start + weights.size],
        )
        first = start + weights.size - layout.array_size
        totals[max(0, first) : max(0, first) + values.size - weights.size] = values[weights.size :]
    sums = {}
    for metric, value in zip(layout.metrics, totals.tolist(), strict=True):
        if not 0 <= value <= contributors * metric.quantise(metric.maximum):
            raise PrivacyError(
                f"The sum of metric {metric.name!r} opened as {value}: out of its range for "
                f"{contributors} nodes.",
                hint="The key is a wrong one, or an update is dishonest.",
            )
        sums[metric.name] = value
    return layout.unflatten(vector), sums
