"""The design ``one-time-key``: as `ours`, with a fresh key for each update.

Drawing the key, with its secure randomness, is part of encrypting. Sharing it out to the
other nodes, and sealing the shares to them, is measured apart: it costs the same whatever
the size of the model. The key that opens a sum is added up here from the secrets
themselves; that nodes reconstruct it from their shares is measured with the shares.
"""

import statistics
import time

import numpy as np

from twopm_flower.bench.ours import TASK, OwnDesign
from twopm_flower.privacy.backend import Backend
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.privacy.one_time_key import OneTimeKey, public_seed
from twopm_flower.privacy.ring import IMPORT_ROWS, ring_for
from twopm_flower.privacy.sealed_shares import ShareContext, seal_share
from twopm_flower.privacy.sharing import add_shares, reconstruct, share_secret, threshold_for

_CHAIN_ID = 1
_CONTRACT = "0x" + "22" * 20
_ROSTER = "0x" + "33" * 32
_REPEATS = 7


class OneTimeKeys:
    """Draws a key for each update, and remembers it until the sum is opened.

    Parameters
    ----------
    backend : Backend
    nodes : int
    """

    def __init__(self, backend: Backend, nodes: int) -> None:
        group = backend.generate_key()
        if group is None:
            raise TypeError(f"the backend {backend.name} hands out no group key")
        self.key_id = group.key_id
        self._nodes = nodes
        self._seed = public_seed(_CHAIN_ID, _CONTRACT, TASK, 1, 1)
        self._drawn: dict[int, OneTimeKey] = {}

    def to_encrypt(self, node: int) -> OneTimeKey:
        """Draw a key."""
        self._drawn[node] = OneTimeKey.fresh(self._seed)
        return self._drawn[node]

    def to_open(self, nodes: tuple[int, ...]) -> OneTimeKey:
        """Add the keys that `nodes` encrypted with last."""
        total = np.sum([self._drawn[node].secret for node in nodes], axis=0)
        return OneTimeKey.of_sum(total, self._seed)

    def shares(self) -> dict[str, float]:
        """Share a key out and seal the shares to all others; reconstruct a sum."""
        colluders = (self._nodes - 1) // 3
        threshold = threshold_for(self._nodes, colluders)
        points = range(1, self._nodes + 1)
        readers = {point: SealingKey.create().public for point in points if point != 1}
        dealt, opened, size = [], [], 0
        for _ in range(_REPEATS):
            secret = OneTimeKey.fresh(self._seed).secret
            start = time.perf_counter()
            shares = share_secret(secret, points, threshold)
            sealed = [
                seal_share(shares[point], key, _context(point, key, threshold))
                for point, key in readers.items()
            ]
            dealt.append(time.perf_counter() - start)
            size = sum(map(len, sealed))
            others = share_secret(OneTimeKey.fresh(self._seed).secret, points, threshold)
            sums = {point: add_shares([shares[point], others[point]]) for point in points}
            start = time.perf_counter()
            reconstruct(sums, threshold)
            opened.append(time.perf_counter() - start)
        return {
            "bytes": size,
            "seconds": statistics.median(dealt),
            "reconstruct_s": statistics.median(opened),
            "readers": len(readers),
            "threshold": threshold,
        }


def open_design(name: str, size: int, nodes: int) -> OwnDesign:
    """Return the design of the backend `name`, as it is in a process that has run for a while."""
    ring_for(IMPORT_ROWS)
    return OwnDesign(name, size, nodes, OneTimeKeys)


def _context(point: int, reader_key: str, threshold: int) -> ShareContext:
    return ShareContext(
        chain_id=_CHAIN_ID,
        contract=_CONTRACT,
        task_id=TASK,
        roster_digest=_ROSTER,
        round=1,
        attempt=1,
        threshold=threshold,
        dealer=f"0x{1:040x}",
        reader=f"0x{point:040x}",
        reader_key=reader_key,
    )
