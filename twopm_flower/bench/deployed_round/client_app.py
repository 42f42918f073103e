"""The node's side of the made-up app."""

from twopm_flower.bench.deployed_clock import NodeClock
from twopm_flower.bench.round_app import client_app
from twopm_flower.federated import EncryptionMod

clock = NodeClock()
app = client_app([clock.outer, EncryptionMod(), clock.inner])
