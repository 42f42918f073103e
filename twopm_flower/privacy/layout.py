"""Which value stands where in the one vector that a node encrypts."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import HeadroomError, LayoutError, RecordError
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.terms import TaskTerms

Arrays = Mapping[str, npt.NDArray[Any]]
Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MAX_SIZE = 1 << 32


@dataclass(frozen=True)
class Metric:
    """A number that is summed over the nodes beside the weights.

    Attributes
    ----------
    name : str
    scale : int
        Steps per unit: the sum is exact to ``1 / (2 * scale)`` per node.
    maximum : float
        The largest value of one node, in the metric's own unit; the smallest is 0.
    """

    name: str
    scale: int
    maximum: float

    def quantise(self, value: float) -> int:
        """Return ``rint(scale * value)``.

        Raises
        ------
        HeadroomError
            If the value is not a number in ``[0, maximum]``.
        """
        if not (math.isfinite(value) and 0 <= value <= self.maximum):
            raise HeadroomError(
                f"Metric {self.name!r} is {value}, outside [0, {self.maximum}].",
                hint="Raise its declared maximum in the task's terms, or correct the metric.",
            )
        return int(np.rint(self.scale * float(value)))


@dataclass(frozen=True)
class Layout:
    """The order of arrays and metrics in the flattened vector of an update.

    Arrays come first, in order, each in C order, then one value per metric. The layout is
    public and the same for every node; its digest stands in every frame.

    Attributes
    ----------
    arrays : tuple of (str, tuple of int)
        Name and shape of each array of the model that is trained.
    metrics : tuple of Metric
    """

    arrays: tuple[tuple[str, tuple[int, ...]], ...]
    metrics: tuple[Metric, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (
            ("array", [name for name, _ in self.arrays]),
            ("metric", [metric.name for metric in self.metrics]),
        ):
            if len(set(names)) != len(names):
                raise LayoutError(f"The layout names an {kind} twice: {sorted(names)}.")
            if not all(isinstance(name, str) and name for name in names):
                raise LayoutError(f"The layout has an {kind} without a name: {names}.")
        for name, shape in self.arrays:
            if not isinstance(shape, tuple) or not all(type(n) is int and n > 0 for n in shape):
                raise LayoutError(f"Array {name!r} has shape {shape!r}: not positive integers.")
        for metric in self.metrics:
            if type(metric.scale) is not int or metric.scale < 1:
                raise LayoutError(f"Metric {metric.name!r} has scale {metric.scale!r}, not >= 1.")
            if not (math.isfinite(metric.maximum) and metric.maximum > 0):
                raise LayoutError(f"Metric {metric.name!r} has maximum {metric.maximum!r}.")
        if not 0 < self.size < _MAX_SIZE:
            raise LayoutError(f"The layout has {self.size} values, not 1 to {_MAX_SIZE - 1}.")

    @classmethod
    def of(cls, arrays: Arrays, metrics: tuple[Metric, ...] = ()) -> "Layout":
        """Return the layout of `arrays`, in their order."""
        shapes = tuple((name, tuple(int(n) for n in a.shape)) for name, a in arrays.items())
        return cls(shapes, metrics)

    @cached_property
    def array_size(self) -> int:
        """How many values the arrays have together."""
        return sum(math.prod(shape) for _, shape in self.arrays)

    @property
    def size(self) -> int:
        """How many values the vector has: the arrays' and one per metric."""
        return self.array_size + len(self.metrics)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return a JSON-ready mapping."""
        return {
            "arrays": [{"name": name, "shape": list(shape)} for name, shape in self.arrays],
            "metrics": [
                {"name": m.name, "scale": m.scale, "maximum": float(m.maximum)}
                for m in self.metrics
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Layout":
        """Read what `to_dict` wrote.

        Raises
        ------
        LayoutError
            If `data` is anything else.
        """
        try:
            arrays = tuple((entry["name"], tuple(entry["shape"])) for entry in data["arrays"])
            metrics = tuple(
                Metric(entry["name"], entry["scale"], float(entry["maximum"]))
                for entry in data["metrics"]
            )
            layout = cls(arrays, metrics)
            same = canonical_bytes(layout.to_dict()) == canonical_bytes(dict(data))
        except (KeyError, TypeError, ValueError, RecordError) as error:
            raise LayoutError(f"This is not a layout: {error!r}.") from error
        if not same:
            raise LayoutError("The layout has entries that no layout has.")
        return layout

    @cached_property
    def digest(self) -> str:
        """The digest that frames and statements name this layout by."""
        return tagged_digest("layout/v1", canonical_bytes(self.to_dict()))

    def flatten(self, arrays: Arrays) -> Vector:
        """Return the values of `arrays` as one vector.

        Parameters
        ----------
        arrays : mapping of str to ndarray of float32 or float64
            Exactly the arrays of the layout.

        Returns
        -------
        ndarray of float64, shape (array_size,)

        Raises
        ------
        LayoutError
            If a name, shape or dtype differs from the layout's.
        HeadroomError
            If a value is NaN or infinite: the array and index are named.
        """
        return self.reader(arrays)(0, self.array_size)

    def reader(self, arrays: Arrays) -> Callable[[int, int], Vector]:
        """Return a function that gives ``flatten(arrays)[start:stop]`` without the rest.

        A large model is encrypted piece by piece, and never stands in memory a second time.

        Raises
        ------
        LayoutError, HeadroomError
            As `flatten` does, before the first piece.
        """
        self._same_names("array", [name for name, _ in self.arrays], arrays)
        flat = [self._checked(arrays[name], name, shape).ravel() for name, shape in self.arrays]
        starts = [0, *accumulate(array.size for array in flat)]

        def read(start: int, stop: int) -> Vector:
            piece = np.empty(stop - start, np.float64)
            index, done = bisect_right(starts, start) - 1, start
            while done < stop:
                end = min(stop, starts[index + 1])
                offset = starts[index]
                piece[done - start : end - start] = flat[index][done - offset : end - offset]
                index, done = index + 1, end
            return piece

        return read

    @staticmethod
    def _checked(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        if array.dtype not in (np.float32, np.float64):
            raise LayoutError(
                f"Array {name!r} holds {array.dtype}; float32 or float64 can be aggregated.",
                hint="Leave arrays of integers out of the layout: exclude them by name.",
            )
        if array.shape != shape:
            raise LayoutError(f"Array {name!r} has shape {array.shape}; agreed was {shape}.")
        if not np.isfinite(array).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise HeadroomError(
                f"Array {name!r} has {array[index]} at index {index}; nothing was encrypted.",
                hint="Lower the learning rate, or look for a division by zero in training.",
            )
        return array

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Return the arrays that `flatten` made `vector` of, as views of it, in float64.

        Raises
        ------
        LayoutError
            If the vector has another length.
        """
        if vector.shape != (self.array_size,):
            raise LayoutError(
                f"A vector of shape {vector.shape} does not fill {self.array_size} values."
            )
        arrays, start = {}, 0
        for name, shape in self.arrays:
            end = start + math.prod(shape)
            arrays[name] = vector[start:end].reshape(shape)
            start = end
        return arrays

    def check_headroom(self, limit: int) -> None:
        """Check that the largest value of every metric fits the encrypted sum.

        Raises
        ------
        HeadroomError
            If ``scale * maximum`` of a metric exceeds `limit`.
        """
        for metric in self.metrics:
            if metric.scale * metric.maximum > limit:
                raise HeadroomError(
                    f"Metric {metric.name!r} can reach {metric.scale * metric.maximum:g}; "
                    f"a field holds {limit}.",
                    hint="Lower its scale or maximum, or the number of fields or nodes.",
                )

    def quantise_metrics(self, metrics: Mapping[str, float], *, limit: int) -> Integers:
        """Return the metrics as integers, in the layout's order.

        Parameters
        ----------
        metrics : mapping of str to float
            Exactly the metrics of the layout.
        limit : int
            The largest magnitude that a field of one node holds.

        Returns
        -------
        ndarray of int64, shape (len(self.metrics),)

        Raises
        ------
        LayoutError
            If a name differs from the layout's.
        HeadroomError
            If a value is out of its declared range or does not fit.
        """
        self.check_headroom(limit)
        self._same_names("metric", [metric.name for metric in self.metrics], metrics)
        return np.array([m.quantise(metrics[m.name]) for m in self.metrics], np.int64)

    @staticmethod
    def _same_names(kind: str, expected: list[str], found: Mapping[str, object]) -> None:
        missing = [name for name in expected if name not in found]
        extra = [name for name in found if name not in expected]
        if missing or extra:
            raise LayoutError(
                f"The update's {kind}s differ from the layout: missing {missing}, unknown {extra}.",
                hint=f"Send exactly the {kind}s that the task's terms declare.",
            )


def layout_of(terms: TaskTerms) -> Layout:
    """Return the layout that the terms of a task describe."""
    return Layout(
        arrays=tuple((array.name, array.shape) for array in terms.arrays),
        metrics=tuple(
            Metric(name=metric.name, scale=metric.scale, maximum=metric.maximum)
            for metric in terms.train_metrics
        ),
    )
