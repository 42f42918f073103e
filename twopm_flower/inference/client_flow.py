"""All that a client of private inference does, as flows that somebody else drives.

Both clients, the one that waits and the one for asyncio, drive the same flows
(`twopm_flower.inference.http_steps`).
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import pydantic_core
from numpy.typing import NDArray

from twopm_flower.errors import DataError, InferenceMismatch, InferenceRefused, RecordError
from twopm_flower.inference.agreed_model import AgreedModel, ClientPolicy, agree
from twopm_flower.inference.asking import Answered, encrypt_request, open_answer, with_anchoring
from twopm_flower.inference.envelope import OCTETS
from twopm_flower.inference.http_steps import Flow, Retries, Send, ask
from twopm_flower.inference.prediction_frame import prediction_frame
from twopm_flower.inference.receipt_folder import ReceiptFolder, kept_receipts
from twopm_flower.inference.requester_key import requester_signer
from twopm_flower.records.inference import Anchoring, ModelCard, ReceiptFile
from twopm_flower.records.statements import TypedDataSigner

CARD_PATH: Final = "/v1/model"
PREDICTIONS_PATH: Final = "/v1/predictions"
RECEIPT_PATH: Final = "/v1/receipts"
MOST_CARD_BYTES: Final = 1024 * 1024
MOST_ANCHORING_BYTES: Final = 64 * 1024
NOT_FOUND: Final = 404


class ClientFlow:
    """The flows of one requester and one service.

    Parameters
    ----------
    signer : TypedDataSigner
        Signs requests.
    folder : ReceiptFolder
        Keeps receipts.
    policy : ClientPolicy
    now : callable
        Returns the time as seconds since 1970.
    """

    def __init__(
        self,
        signer: TypedDataSigner,
        folder: ReceiptFolder,
        policy: ClientPolicy,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._folder = folder
        self._policy = policy
        self._now = now
        self._retries = Retries(policy.retries, now)
        self._model: AgreedModel | None = None

    @classmethod
    def of(
        cls, home: Path | None, policy: ClientPolicy, signer: TypedDataSigner | None = None
    ) -> Self:
        """Return the flows of a home's requester, whose key is made if there is none.

        Raises
        ------
        ConfigError
            The home cannot be written, or its key cannot be read.
        """
        return cls(signer or requester_signer(home), kept_receipts(home), policy)

    @property
    def address(self) -> str:
        """The EIP-55 address that requests are signed by."""
        return self._signer.address

    def card(self, *, refresh: bool = False) -> Flow[ModelCard]:
        """Ask for the model card, and return it if it can be agreed with."""
        return (yield from self._agreed(refresh=refresh)).card

    def predict(self, frame: pd.DataFrame) -> Flow[pd.DataFrame]:
        """Encode students, and predict for them."""
        model = yield from self._agreed()
        predictions = yield from self._ask_for(model.encoder.encode_features(frame))
        return predictions.set_index(frame.index)

    def predict_features(self, features: NDArray[np.floating[Any]]) -> Flow[pd.DataFrame]:
        """Predict for rows that are encoded already."""
        if features.ndim != 2 or len(features) == 0:
            raise DataError(
                f"features of shape {features.shape} are no rows",
                hint="Give an array of shape (rows, features) with at least one row.",
            )
        return (yield from self._ask_for(features))

    def receipts(self, *, fetch: bool) -> Flow[tuple[ReceiptFile, ...]]:
        """Return the receipts that are kept; ask for anchorings that are not known yet.

        Where the policy names a chain, an anchoring that it does not know is dropped and asked
        for again: the service lied, or the chain forgot the block.
        """
        receipts = self._folder.load()
        if not fetch:
            return receipts
        model = yield from self._agreed()
        found = []
        for kept in receipts:
            receipt = self._without_unknown_anchoring(kept)
            if receipt.anchoring is None and receipt.card.service == model.card.service:
                found.append((yield from self._with_anchoring(receipt)))
            else:
                found.append(receipt)
        return tuple(found)

    def _agreed(self, *, refresh: bool = False) -> Flow[AgreedModel]:
        if self._model is None or refresh:
            body = yield from ask(Send("GET", CARD_PATH, MOST_CARD_BYTES), self._retries)
            try:
                card = ModelCard.from_bytes(body)
            except RecordError as error:
                raise InferenceMismatch(f"the service has no model card: {error}") from error
            self._model = agree(card, self._policy)
        return self._model

    def _ask_for(self, features: NDArray[np.floating[Any]]) -> Flow[pd.DataFrame]:
        model = yield from self._agreed()
        parts = []
        most = 1 if self._policy.preset == "latency" else model.card.max_rows
        for start in range(0, len(features), most):
            rows = features[start : start + most]
            answered = yield from self._answered(rows, model)
            digest = answered.receipt.receipt_digest
            parts.append(prediction_frame(answered.scores, model.card, receipt=digest))
        return pd.concat(parts, ignore_index=True)

    def _answered(self, rows: NDArray[np.floating[Any]], model: AgreedModel) -> Flow[Answered]:
        policy = self._policy
        asked = encrypt_request(rows, model, self._signer, preset=policy.preset, now=self._now())
        request = Send("POST", PREDICTIONS_PATH, asked.most_answer_bytes, asked.body, OCTETS)
        answer = yield from ask(request, self._retries)
        answered = open_answer(asked, answer, model, now=self._now())
        if policy.keep_receipts:
            self._folder.store(answered.receipt, asked.frame, answered.response)
        return answered

    def _with_anchoring(self, receipt: ReceiptFile) -> Flow[ReceiptFile]:
        path = f"{RECEIPT_PATH}/{receipt.receipt_digest}"
        try:
            body = yield from ask(Send("GET", path, MOST_ANCHORING_BYTES), self._retries)
        except InferenceRefused as error:
            if error.status != NOT_FOUND:
                raise
            return receipt
        try:
            anchoring = _anchoring(body)
        except RecordError as error:
            raise InferenceMismatch(
                f"the service does not say where a receipt is anchored: {error}"
            ) from error
        if anchoring is None:
            return receipt
        anchored = with_anchoring(receipt, anchoring)
        self._folder.update(anchored)
        return self._without_unknown_anchoring(anchored)

    def _without_unknown_anchoring(self, receipt: ReceiptFile) -> ReceiptFile:
        chain, stated = self._policy.chain, receipt.anchoring
        if chain is None or stated is None:
            return receipt
        found = chain.receipt_anchor(stated.issuer, stated.root)
        if found is not None and (found.count, found.transaction_hash, found.block_number) == (
            stated.count,
            stated.transaction_hash,
            stated.block_number,
        ):
            return receipt
        without = receipt.model_copy(update={"anchoring": None})
        self._folder.update(without)
        return without


def _anchoring(body: bytes) -> Anchoring | None:
    try:
        said = pydantic_core.from_json(body)
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(said, dict):
        raise RecordError("not a JSON object")
    return None if said.get("anchoring") is None else Anchoring.from_json(said["anchoring"])
