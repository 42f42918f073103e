"""The client of a private inference service, for callers that wait."""

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client_async import AsyncPrivateInferenceClient
from twopm_flower.records.inference import ModelCard, ReceiptFile
from twopm_flower.records.statements import TypedDataSigner

T = TypeVar("T")


class PrivateInferenceClient:
    """`AsyncPrivateInferenceClient` for callers that wait; parameters and errors are its own.

    Its exchanges run on an event loop in a thread, so that it works in notebooks, too, and a
    service that answers a byte at a time is given no more time than one that is silent.
    Several threads may use one client.

    Examples
    --------
    >>> with PrivateInferenceClient("https://inference.example:8443") as client:  # doctest: +SKIP
    ...     client.predict(students)
    """

    def __init__(
        self,
        url: str,
        *,
        home: Path | None = None,
        signer: TypedDataSigner | None = None,
        policy: ClientPolicy | None = None,
        ca_file: Path | None = None,
        insecure: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._async = AsyncPrivateInferenceClient(
            url,
            home=home,
            signer=signer,
            policy=policy,
            ca_file=ca_file,
            insecure=insecure,
            transport=transport,
        )
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=_serve, args=(self._loop,), name="private-inference", daemon=True
        )
        thread.start()
        # Who forgets to close it leaves no thread behind for longer than the client lives.
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    @property
    def url(self) -> str:
        """The service's address."""
        return self._async.url

    @property
    def address(self) -> str:
        """The EIP-55 address that requests are signed by."""
        return self._async.address

    def card(self, *, refresh: bool = False) -> ModelCard:
        """Return what the service says about its model, checked; asked for once."""
        return self._wait(self._async.card(refresh=refresh))

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Predict for students; see `AsyncPrivateInferenceClient.predict`."""
        return self._wait(self._async.predict(frame))

    def predict_features(self, features: NDArray[np.floating[Any]]) -> pd.DataFrame:
        """Predict for encoded rows; see `AsyncPrivateInferenceClient.predict_features`."""
        return self._wait(self._async.predict_features(features))

    def receipts(self, *, fetch: bool = True) -> tuple[ReceiptFile, ...]:
        """Return the receipts that are kept; see `AsyncPrivateInferenceClient.receipts`."""
        return self._wait(self._async.receipts(fetch=fetch))

    def close(self) -> None:
        """Close all connections; a closed client stays closed."""
        if self._stop.alive:
            self._wait(self._async.aclose())
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:
            # Such as Ctrl-C, after which nobody waits for an answer any more.
            waiting.cancel()
            raise


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
