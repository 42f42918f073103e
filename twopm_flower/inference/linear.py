"""Private predictions by our own scheme, which needs no evaluation keys."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy.typing as npt

from twopm_flower.inference.base import Floats
from twopm_flower.privacy import linear_numpy
from twopm_flower.privacy.linear_frame import parse_request
from twopm_flower.privacy.linear_model import PreparedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters, Preset
from twopm_flower.privacy.linear_request import RequestKey, encrypt_rows, open_scores
from twopm_flower.privacy.linear_service import LinearRing, answer, mask_seed_for


@dataclass(frozen=True)
class LinearClient:
    """Encrypts rows and opens scores.

    Attributes
    ----------
    parameters : LinearParameters
    model_digest : str
    preset : {"latency", "batch"}
    """

    parameters: LinearParameters
    model_digest: str
    preset: Preset = "latency"

    def encrypt(self, rows: npt.NDArray[Any], /) -> tuple[bytes, RequestKey]:
        """Do what `encrypt_rows` does."""
        return encrypt_rows(rows, self.parameters, self.preset, model_digest=self.model_digest)

    def open(self, response: bytes, key: RequestKey, /) -> Floats:
        """Do what `open_scores` does."""
        return open_scores(response, key)


@dataclass(frozen=True, eq=False)
class LinearService:
    """Answers requests of both presets.

    Attributes
    ----------
    model : PreparedLinear
    model_digest : str
    mask_key : bytes or None
        What mask seeds are derived from; needed for secret weights.
    max_rows : int
    ring : LinearRing
    """

    model: PreparedLinear
    model_digest: str
    mask_key: bytes | None = None
    max_rows: int = 4096
    ring: LinearRing | ModuleType = linear_numpy

    def __repr__(self) -> str:
        return f"LinearService({self.model_digest}, {self.model.parameters.policy} weights)"

    @property
    def setup_bytes(self) -> int:
        """0: there are no evaluation keys."""
        return 0

    def answer(self, request: bytes, /) -> bytes:
        """Return the response frame to a request frame.

        Raises
        ------
        FrameError
            If the request is malformed or bound to another model.
        """
        parsed = parse_request(
            request,
            self.model.parameters,
            model_digest=self.model_digest,
            max_rows=self.max_rows,
        )
        seed = None if self.mask_key is None else mask_seed_for(self.mask_key, parsed.digest)
        return answer(parsed, self.model, seed, self.ring)
