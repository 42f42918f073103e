"""The design ``plaintext``: float32 arrays that travel as they are and are added by numpy."""

import numpy as np
import numpy.typing as npt

from twopm_flower.bench.standalone import updates


class PlainDesign:
    """What a federation without encryption does, in the fewest operations.

    Parameters
    ----------
    size : int
        Parameters of the model.
    """

    def __init__(self, size: int) -> None:
        self._layers = updates.layers(size)
        self._total: npt.NDArray[np.float32] | None = None
        self._rows = 0

    def encrypt(self, node: int, update: updates.Arrays) -> bytes:
        """Weight the update by the node's rows; the bytes are its float32 values."""
        weight = np.float32(updates.samples(node))
        return b"".join((array * weight).tobytes() for array in update.values())

    def start(self) -> None:
        """Forget the sum."""
        self._total, self._rows = None, 0

    def add(self, node: int, upload: bytes) -> None:
        """Add one upload in float32."""
        values = np.frombuffer(upload, np.float32)
        self._rows += updates.samples(node)
        if self._total is None:
            self._total = values.copy()
        else:
            self._total += values

    def finish(self) -> bytes:
        """Return the sum."""
        if self._total is None:
            raise ValueError("nothing was added")
        return self._total.tobytes()

    def open(self, download: bytes) -> updates.Means:
        """Divide the sum by the summed rows."""
        values = np.frombuffer(download, np.float32) / np.float64(self._rows)
        return split(values, self._layers)

    def error_bound(self) -> None:
        """Return None: float32 rounds as it adds."""

    def shares(self) -> None:
        """Return None: nothing travels beside an update."""


def split(values: npt.NDArray[np.float64], layers: dict[str, int]) -> updates.Means:
    """Return the arrays whose values stand one after the other in `values`."""
    ends = np.cumsum(list(layers.values()))[:-1]
    return dict(zip(layers, np.split(values, ends), strict=True))


def open_design(_name: str, size: int, _nodes: int) -> PlainDesign:
    """Return the design for models of `size` parameters."""
    return PlainDesign(size)
