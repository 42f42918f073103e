"""What a scheme of private predictions does on either side, whichever encryption it uses."""

from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
KeyT = TypeVar("KeyT")


class PredictionClient(Protocol[KeyT]):
    """A requester's side: whoever holds the key of a request reads its answer."""

    def encrypt(self, rows: npt.NDArray[Any], /) -> tuple[bytes, KeyT]:
        """Return a request for rows of features, shape (n, d), and what opens its answer."""

    def open(self, response: bytes, key: KeyT, /) -> Floats:
        """Return the scores in an answer, shape (n, K)."""


class PredictionService(Protocol):
    """A service's side: it computes on what it cannot read."""

    @property
    def setup_bytes(self) -> int:
        """How many bytes of keys a requester sends before its first request."""

    def answer(self, request: bytes, /) -> bytes:
        """Return the answer to a request."""
