"""The designs of this package: what a node and the server of an encrypted run compute.

Client: `encrypt_update` (flatten, clip check, quantise, pack, encrypt) and `encode_update`.
Server: `parse_update` with all of its checks, `expand`, which for ``bfv`` has the uniform
half grown from its seeds in a process of its own, and `add` to the sum so far. Opening:
`parse_aggregate` and `open_aggregate`. Signatures, digests and fingerprints are not in it:
`twopm bench round` measures them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from twopm_flower.bench.standalone import updates
from twopm_flower.privacy.backend import Backend, Key, open_backend
from twopm_flower.privacy.binding import FrameContext
from twopm_flower.privacy.ciphertext import RunningSum
from twopm_flower.privacy.frame import (
    encode_aggregate,
    encode_update,
    parse_aggregate,
    parse_update,
)
from twopm_flower.privacy.isolated import IsolatedBackend
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.parameters import AdditiveParameters, BackendName
from twopm_flower.privacy.quantise import error_bound
from twopm_flower.privacy.update import encrypt_update, open_aggregate

TASK = "0x" + hashlib.sha256(b"twopm-flower benchmark").hexdigest()
_NO_KEY = "0x" + "00" * 32


class Keys(Protocol):
    """Where the keys of one attempt of a round come from."""

    key_id: str

    def to_encrypt(self, node: int) -> Key:
        """Return the key of a node's next update."""

    def to_open(self, nodes: tuple[int, ...]) -> Key:
        """Return the key that opens the sum of the latest updates of `nodes`."""

    def shares(self) -> dict[str, float] | None:
        """Measure what is sent beside an update; None where nothing is."""


class SharedKeys:
    """One key for all nodes, or none: dealt once for a task, so nothing is sent in a round.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Backend) -> None:
        self._key = backend.generate_key()
        self.key_id = _NO_KEY if self._key is None else self._key.key_id

    def to_encrypt(self, node: int) -> Key:
        """Return the key of all nodes."""
        return self._key

    def to_open(self, nodes: tuple[int, ...]) -> Key:
        """Return the key of all nodes."""
        return self._key

    def shares(self) -> None:
        """Return None: nothing is sent."""


@dataclass(frozen=True)
class _Setting:
    backend: Backend
    expander: Backend | IsolatedBackend
    parameters: AdditiveParameters
    layout: Layout


class OwnDesign:
    """A backend and its keys.

    Parameters
    ----------
    name : str
        The backend.
    size : int
        Parameters of the model.
    nodes : int
        The most nodes that take part.
    keys : callable
        Makes the keys of one attempt for a backend and a number of nodes.
    """

    def __init__(
        self, name: str, size: int, nodes: int, keys: Callable[[Backend, int], Keys]
    ) -> None:
        parameters = AdditiveParameters.derive(cast(BackendName, name), nodes)
        self._name, self._nodes = name, nodes
        backend = open_backend(parameters)
        self._set = _Setting(
            backend=backend,
            expander=IsolatedBackend(parameters) if name == "bfv" else backend,
            parameters=parameters,
            layout=Layout(tuple((n, (length,)) for n, length in updates.layers(size).items())),
        )
        self._keys = keys(backend, nodes)
        self.start()

    def encrypt(self, node: int, update: updates.Arrays) -> bytes:
        """Make the frame that travels up."""
        ciphertext, _ = encrypt_update(
            update,
            {},
            layout=self._set.layout,
            parameters=self._set.parameters,
            backend=self._set.backend,
            key=self._keys.to_encrypt(node),
            clip=updates.CLIP,
            samples=updates.samples(node),
            max_samples=updates.MAX_SAMPLES,
        )
        return encode_update(self._context(node), ciphertext, self._name)

    def start(self) -> None:
        """Forget the sum."""
        self._total = RunningSum(self._nodes)
        self._added: list[int] = []

    def add(self, node: int, upload: bytes) -> None:
        """Check the frame, expand it, and add it to the sum."""
        setting = self._set
        seeded = parse_update(upload, self._context(node), setting.parameters, setting.layout)
        fresh = setting.expander.expand(seeded)
        self._total.add(fresh)
        self._added.append(node)

    def finish(self) -> bytes:
        """Make the frame that travels down."""
        self._opened = tuple(self._added)
        self._opening_key = self._keys.to_open(self._opened)
        return encode_aggregate(self._context(0), self._total.total(), self._name)

    def open(self, download: bytes) -> updates.Means:
        """Check the frame, decrypt it, and divide by the summed weights."""
        setting = self._set
        aggregate = parse_aggregate(download, self._context(0), setting.parameters, setting.layout)
        found, _ = open_aggregate(
            aggregate,
            layout=setting.layout,
            parameters=setting.parameters,
            backend=setting.backend,
            key=self._opening_key,
            clip=updates.CLIP,
            samples_total=sum(updates.samples(node) for node in self._opened),
            max_samples=updates.MAX_SAMPLES,
            contributors=len(self._opened),
        )
        return found

    def error_bound(self) -> float:
        """Return what the quantiser guarantees."""
        return error_bound(
            clip=updates.CLIP,
            limit=self._set.parameters.limit,
            contributors=self._nodes,
            samples_total=sum(updates.samples(node) for node in range(self._nodes)),
            max_samples=updates.MAX_SAMPLES,
        )

    def shares(self) -> dict[str, float] | None:
        """Return bytes and seconds of the shares of one key, where keys are shared out."""
        return self._keys.shares()

    def _context(self, node: int) -> FrameContext:
        return FrameContext(
            task_id=TASK,
            round=1,
            attempt=1,
            node=f"0x{node + 1:040x}",
            key_id=self._keys.key_id,
            parameters_id=self._set.parameters.identifier,
            layout_digest=self._set.layout.digest,
        )


def open_design(name: str, size: int, nodes: int) -> OwnDesign:
    """Return the design of the backend `name`."""
    return OwnDesign(name, size, nodes, lambda backend, _nodes: SharedKeys(backend))
