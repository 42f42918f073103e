"""One node of four that misbehaves, and how a bundle lists it."""

import numpy as np
from federation import MAX_NODES
from quantised_fedavg import quantised_run

CANARY = "canary-7f3a91"
BAD = 3
"""The node that misbehaves; three honest ones are left."""


def exclusions(federation, round_=1):
    manifest = federation.bundle().rounds[round_ - 1].manifest
    return {exclusion.node: exclusion for exclusion in manifest.exclusions}


def only_exclusion(federation, round_=1):
    """Return how the bad node is listed, after checking that the others are in the sum."""
    bad = federation.nodes[BAD]
    manifest = federation.bundle().rounds[round_ - 1].manifest
    assert set(manifest.nodes) == {n.address for n in federation.nodes if n is not bad}
    listed = exclusions(federation, round_)
    assert set(listed) == {bad.address}
    return listed[bad.address]


def run_without(federation, **settings):
    federation.run(**settings)
    expected = quantised_run(federation.initial, [0, 1, 2], 1, clip=4.0, max_nodes=MAX_NODES)
    for name, array in federation.nodes[0].model(1).items():
        np.testing.assert_array_equal(array, expected[1][name])
