"""The Flower glue: the mod of the nodes, the strategy of the server, their callbacks.

Names are imported when first used: a node's process starts for each message and should not
load the server's side.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twopm_flower.federated.callbacks import ChainRecorder, RoundCallback
    from twopm_flower.federated.local import LocalGrid
    from twopm_flower.federated.mod import EncryptionMod
    from twopm_flower.federated.prepared import SimulationOptions
    from twopm_flower.federated.strategy import EncryptedAggregation

_HOMES = {
    "ChainRecorder": "callbacks",
    "EncryptedAggregation": "strategy",
    "EncryptionMod": "mod",
    "LocalGrid": "local",
    "RoundCallback": "callbacks",
    "SimulationOptions": "prepared",
}

__all__ = [
    "ChainRecorder",
    "EncryptedAggregation",
    "EncryptionMod",
    "LocalGrid",
    "RoundCallback",
    "SimulationOptions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
