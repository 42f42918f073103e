"""Anchoring receipts: batches of them, each under one Merkle root, sooner or later on chain."""

import logging
import threading
from types import TracebackType
from typing import Final, Protocol, Self

from twopm_flower.chain.facts import ReceiptAnchor
from twopm_flower.errors import TwopmError
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.records.merkle import MerkleTree, receipt_leaf

EVERY_S: Final = 60.0
_LAST_TRY_S: Final = 30.0

log = logging.getLogger(__name__)


class AnchoringChain(Protocol):
    """What is needed of a chain."""

    def anchor_receipts(self, root: str, count: int) -> ReceiptAnchor:
        """Anchor a batch; one that is anchored already is success."""


class Anchorer:
    """Puts receipts into batches and the batches on chain, in a thread of its own.

    A batch is stored before it is sent and anchoring is idempotent, so that a crash at any point
    costs nothing; while the chain does not answer, receipts wait.

    Parameters
    ----------
    store : ReceiptStore
    chain : AnchoringChain
    issuer : str
        The account that pays.
    every_s : float
        Seconds between batches.
    """

    def __init__(
        self, store: ReceiptStore, chain: AnchoringChain, issuer: str, *, every_s: float = EVERY_S
    ) -> None:
        self._store = store
        self._chain = chain
        self._issuer = issuer
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anchoring", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(_LAST_TRY_S)

    def anchor(self) -> int:
        """Anchor all receipts that are not anchored; return how many are after it.

        Raises
        ------
        ChainError
            The chain does not answer, or refuses a batch.
        """
        while found := self._store.without_batch():
            leaves = [receipt_leaf(self._issuer, digest) for _, digest in found]
            root = "0x" + MerkleTree.of(leaves).root.hex()
            self._store.add_batch(self._issuer, root, [number for number, _ in found])
        for batch in self._store.open_batches():
            anchor = self._chain.anchor_receipts(batch.root, batch.count)
            self._store.set_anchored(batch, anchor.transaction_hash, anchor.block_number)
            log.info("%d receipts are anchored in block %d", batch.count, anchor.block_number)
        return self._store.unanchored()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.anchor()
        except TwopmError as error:
            log.warning("receipts wait to be anchored: %s", error.message)
        except Exception:
            # Whatever it is: the receipts are safe, and the next try may succeed.
            log.exception("receipts could not be anchored")
