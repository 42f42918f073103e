"""One encrypted request: how it is made, and how its answer is judged and opened."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from twopm_flower.errors import InferenceMismatch, PrivacyError, RecordError, SignatureError
from twopm_flower.inference.agreed_model import AgreedModel
from twopm_flower.inference.envelope import CLOCK_TOLERANCE_S, pack_request, unpack_answer
from twopm_flower.privacy.linear_frame import request_digest, response_digest
from twopm_flower.privacy.linear_parameters import Preset
from twopm_flower.privacy.linear_request import RequestKey, encrypt_rows, open_scores
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.inference import (
    Anchoring,
    PredictionReceipt,
    PredictionRequest,
    ReceiptFile,
)
from twopm_flower.records.merkle import receipt_leaf, root_from_proof
from twopm_flower.records.statements import Signed, TypedDataSigner, sign

MOST_RECEIPT_BYTES: Final = 64 * 1024
"""What an answer has beside the encrypted scores: their header, and the signed receipt."""
MOST_ANSWER_BYTES: Final = 512 * 1024 * 1024
"""No answer is asked for that would be longer, whatever a service's parameters are."""


@dataclass(frozen=True)
class Asked:
    """A request that is ready to be sent, any number of times.

    Attributes
    ----------
    frame : bytes
        The encrypted rows.
    signed : Signed[PredictionRequest]
        What the requester signed about them.
    key : RequestKey
        What opens the answer; it is nowhere else, and never leaves this process.
    most_answer_bytes : int
        No honest answer is longer.
    """

    frame: bytes
    signed: Signed[PredictionRequest]
    key: RequestKey
    most_answer_bytes: int

    @property
    def body(self) -> bytes:
        """The bytes that are sent: statement and frame."""
        return pack_request(self.signed, self.frame)


@dataclass(frozen=True)
class Answered:
    """An answer that is what was asked for.

    Attributes
    ----------
    scores : numpy.ndarray
        float64, shape (rows, scores): the model's, before its link.
    receipt : ReceiptFile
        All that somebody else needs to check it, beside the two frames.
    response : bytes
        The encrypted scores.
    """

    scores: NDArray[np.float64]
    receipt: ReceiptFile
    response: bytes


def encrypt_request(
    features: NDArray[np.floating[Any]],
    model: AgreedModel,
    signer: TypedDataSigner,
    *,
    preset: Preset | None,
    now: float,
) -> Asked:
    """Encrypt rows under a fresh key, and sign the request.

    Parameters
    ----------
    features : numpy.ndarray
        Shape (rows, features).
    model : AgreedModel
    signer : TypedDataSigner
        The requester's.
    preset : {"latency", "batch"} or None
        ``latency`` for one row and ``batch`` for more, if not given.
    now : float
        Seconds since 1970.

    Raises
    ------
    DataError
        A value that is not finite or out of its range, or rows of another shape.
    InferenceMismatch
        The answer would be too long to be kept in memory.
    """
    rows = len(features)
    card = model.card
    chosen = preset or ("latency" if rows == 1 else "batch")
    response_bytes = model.parameters.response_bytes(chosen, rows)
    if response_bytes > MOST_ANSWER_BYTES:
        raise InferenceMismatch(
            f"by the service's parameters the answer to {rows} rows has {response_bytes} bytes, "
            f"and no more than {MOST_ANSWER_BYTES} bytes are accepted",
            hint="Ask for fewer rows at a time.",
        )
    frame, key = encrypt_rows(
        np.asarray(features, dtype=np.float64),
        model.parameters,
        chosen,
        model_digest=card.model_digest,
    )
    statement = PredictionRequest(
        service=card.service,
        model_digest=card.model_digest,
        parameters_id=model.parameters.identifier,
        request_digest=request_digest(frame),
        rows=rows,
        issued_at=int(now),
    )
    signed = sign(statement, signer, card.deployment.receipt_domain)
    return Asked(frame, signed, key, response_bytes + MOST_RECEIPT_BYTES)


def open_answer(asked: Asked, answer: bytes, model: AgreedModel, *, now: float) -> Answered:
    """Check an answer and its receipt, and open it.

    Raises
    ------
    InferenceMismatch
        The receipt is not signed by the service, or speaks of something else than what was
        asked and answered; or the answer does not open.
    """
    try:
        signed, mask_seed, frame = unpack_answer(answer)
        _check_receipt(signed, frame, asked, model)
    except (RecordError, PrivacyError) as error:
        raise InferenceMismatch(f"the service answers with no valid receipt: {error}") from error
    if mask_seed is not None:
        # With secret weights it would give them away; with public ones there is no mask.
        raise InferenceMismatch("the service shows the seed of a mask, which only it should have")
    late_s = signed.statement.issued_at - now
    if abs(late_s) > CLOCK_TOLERANCE_S:
        raise InferenceMismatch(
            f"the receipt is dated {late_s:+.0f} s from this machine's time",
            hint="Set the clock; if it is right, the service's is not.",
        )
    try:
        scores = open_scores(frame, asked.key)
    except PrivacyError as error:
        raise InferenceMismatch(f"the service's answer does not open: {error}") from error
    receipt = ReceiptFile(
        card=model.card, request=asked.signed, receipt=signed, mask_seed=None, anchoring=None
    )
    return Answered(scores, receipt, frame)


def with_anchoring(receipt: ReceiptFile, anchoring: Anchoring) -> ReceiptFile:
    """Return a receipt with where it is anchored, if the proof leads from it to the root.

    Whether a chain has that root is not asked here: ``twopm verify --receipt`` does.

    Raises
    ------
    InferenceMismatch
        Another account anchored it than the receipt names, or the proof does not hold.
    """
    issuer = receipt.receipt.statement.issuer
    leaf = receipt_leaf(issuer, receipt.receipt_digest)
    root = root_from_proof(leaf, [bytes.fromhex(part[2:]) for part in anchoring.proof])
    if anchoring.issuer != issuer or "0x" + root.hex() != anchoring.root:
        raise InferenceMismatch(
            f"the service shows no proof that it anchored the receipt {receipt.receipt_digest}"
        )
    return receipt.model_copy(update={"anchoring": anchoring})


def _check_receipt(
    signed: Signed[PredictionReceipt], frame: bytes, asked: Asked, model: AgreedModel
) -> None:
    card, request = model.card, asked.signed.statement
    if signed.node != card.service:
        raise SignatureError(f"it is signed by {signed.node}, not by {card.service}")
    receipt = signed.check(card.deployment.receipt_domain)
    expected = {
        "task_id": card.task_id,
        "card_digest": model.card_digest,
        "model_digest": request.model_digest,
        "parameters_id": request.parameters_id,
        "requester": asked.signed.node,
        "request_digest": request.request_digest,
        "response_digest": response_digest(frame),
        "issuer": card.issuer,
        "rows": request.rows,
        "price": card.price,
    }
    for name, value in expected.items():
        if (found := getattr(receipt, name)) != value:
            raise RecordError(f"its {name} is {found}, not {value}")
    if (receipt.mask_commitment == ZERO_DIGEST) != (card.weights == "public"):
        raise RecordError("a mask is committed to exactly where weights are secret, and here not")
