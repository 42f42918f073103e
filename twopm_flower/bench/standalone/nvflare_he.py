"""The design ``nvflare``: NVFlare's own classes for homomorphic encryption, in its own order.

Runs in an environment of its own (`twopm bench peers --install`), without this package.
Nothing of NVFlare is rewritten here: `HEBuilder` makes the two contexts that provisioning
writes; a client's result passes `HEModelEncryptor` and the cell's `encode_payload`; the
server's `decode_payload` hands it to `HEInTimeAccumulateWeightedAggregator`, and the sum
through `HEModelShareableGenerator` and `encode_payload` to the clients, where it passes
`decode_payload` and `HEModelDecryptor`.
"""

# mypy: disable-error-code="import-not-found"
# NVFlare and the file beside this one are found by the Python that runs it, not by ours.

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import updates
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (
    HEInTimeAccumulateWeightedAggregator,
)
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor
from nvflare.app_opt.he.model_shareable_generator import HEModelShareableGenerator
from nvflare.fuel.f3.cellnet.utils import decode_payload, encode_payload
from nvflare.fuel.f3.message import Message
from nvflare.fuel.sec.security_content_service import SecurityContentService
from nvflare.lighter.impl.he import HEBuilder

CLIENT_CONTEXT = "client_context.tenseal"
SERVER_CONTEXT = "server_context.tenseal"
_CURRENT_ROUND = 1


class NvflareDesign:
    """The components that an NVFlare job with encryption configures, at their defaults.

    Parameters
    ----------
    size : int
        Parameters of the model.
    """

    def __init__(self, size: int) -> None:
        logging.disable()
        with tempfile.TemporaryDirectory() as folder:
            _provision(Path(folder))
            context = _fl_context("server")
            self._encryptor = HEModelEncryptor(CLIENT_CONTEXT)
            self._decryptor = HEModelDecryptor(CLIENT_CONTEXT)
            self._generator = HEModelShareableGenerator(SERVER_CONTEXT)
            for component in (self._encryptor, self._decryptor, self._generator):
                component.handle_event(EventType.START_RUN, context)
        self._size = size
        self.start()

    def encrypt(self, node: int, update: updates.Arrays) -> bytes:
        """Filter a client's result and encode it as the cell does."""
        dxo = DXO(DataKind.WEIGHTS, data=dict(update))
        dxo.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, updates.samples(node))
        shareable = self._encryptor.process(dxo.to_shareable(), _fl_context(f"site-{node}"))
        shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{node}"})
        shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, _CURRENT_ROUND)
        return _encode(shareable)

    def start(self) -> None:
        """Start a round's aggregator."""
        self._aggregator = HEInTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHTS)
        self._aggregator.handle_event(EventType.START_RUN, _fl_context("server"))

    def add(self, node: int, upload: bytes) -> None:
        """Decode a result and have it accepted."""
        if not self._aggregator.accept(_decode(upload), _fl_context("server")):
            raise RuntimeError(f"NVFlare's aggregator did not accept the update of node {node}")

    def finish(self) -> bytes:
        """Aggregate, and encode the new global model."""
        context = _fl_context("server")
        model = {name: np.zeros(0) for name in updates.layers(self._size)}
        learnable = make_model_learnable(model, {})
        context.set_prop(AppConstants.GLOBAL_MODEL, learnable, private=True, sticky=False)
        learnable = self._generator.shareable_to_learnable(
            self._aggregator.aggregate(context), context
        )
        return _encode(self._generator.learnable_to_shareable(learnable, context))

    def open(self, download: bytes) -> updates.Means:
        """Decode and decrypt the global model."""
        opened = self._decryptor.process(_decode(download), _fl_context("site-0"))
        return {name: np.asarray(v, np.float64) for name, v in from_shareable(opened).data.items()}

    def error_bound(self) -> None:
        """Return None: CKKS is approximate, and NVFlare states no bound."""

    def shares(self) -> None:
        """Return None: nothing travels beside an update."""


def open_design(_name: str, size: int, _nodes: int) -> NvflareDesign:
    """Return the design for models of `size` parameters."""
    return NvflareDesign(size)


def _provision(folder: Path) -> None:
    builder = HEBuilder()
    builder.initialize(None, None)
    for name, is_client in ((CLIENT_CONTEXT, True), (SERVER_CONTEXT, False)):
        (folder / name).write_bytes(builder.get_serialized_context(is_client=is_client))
    SecurityContentService.security_content_manager = None
    SecurityContentService.initialize(str(folder))


def _fl_context(name: str) -> FLContext:
    context, peer = FLContext(), FLContext()
    # The contexts here are not signed by a provisioned root, which secure mode would ask for.
    context.set_prop(FLContextKey.SECURE_MODE, False, private=True, sticky=False)
    context.set_prop(AppConstants.CURRENT_ROUND, _CURRENT_ROUND, private=True, sticky=False)
    peer.set_prop(ReservedKey.IDENTITY_NAME, name, private=False, sticky=False)
    context.set_peer_context(peer)
    return context


def _encode(shareable: Shareable) -> bytes:
    message = Message(payload=shareable)
    encode_payload(message)
    payload: Any = message.payload
    return payload if isinstance(payload, bytes) else b"".join(payload)


def _decode(data: bytes) -> Shareable:
    message = Message(payload=Shareable())
    encode_payload(message)
    message.payload = data
    decode_payload(message)
    return message.payload
