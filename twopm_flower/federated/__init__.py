"""The Flower glue: the mod of the nodes, the strategy of the server, their callbacks."""

from twopm_flower.federated.callbacks import ChainRecorder, RoundCallback
from twopm_flower.federated.local import LocalGrid
from twopm_flower.federated.mod import EncryptionMod
from twopm_flower.federated.prepared import SimulationOptions
from twopm_flower.federated.strategy import EncryptedAggregation

__all__ = [
    "ChainRecorder",
    "EncryptedAggregation",
    "EncryptionMod",
    "LocalGrid",
    "RoundCallback",
    "SimulationOptions",
]
