"""Steps 1 to 5 of a receipt: what both sides signed, and the bytes that they signed it about."""

from typing import Final

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.linear_frame import response_digest
from twopm_flower.privacy.linear_service import mask_commitment
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.verify.receipt_subject import ReceiptSubject
from twopm_flower.verify.stepping import SkippedStep, require

MOST_APART_S: Final = 600
"""A service takes requests that its clock puts within 300 s, and answers soon after."""


def check_form(subject: ReceiptSubject) -> str:
    """Step 1: one encoding, and parameters that are those of the model on the card."""
    card, parameters = subject.card, subject.parameters
    ReceiptFile.from_bytes(subject.file.to_bytes())
    require(card.parameters_id, parameters.identifier, "parameters_id", "the parameters give")
    require(card.weights, parameters.policy, "the card's weights", "the parameters are for")
    require(
        len(card.features), parameters.features, "the number of features", "the parameters have"
    )
    # One score decides between two classes; more scores have a class each.
    classes = 2 if card.link == "sigmoid" and parameters.classes == 1 else parameters.classes
    require(len(card.classes), classes, "the number of classes", "the parameters and the link take")
    return f"features {parameters.features}, scores {parameters.classes}, weights {card.weights}"


def check_service(subject: ReceiptSubject) -> str:
    """Step 2: the service of the card signed the receipt, for the model on the card."""
    signed, card = subject.file.receipt, subject.card
    require(signed.node, card.service, "the receipt's signer", "the card's service is")
    receipt = signed.check(subject.domain)
    require(receipt.card_digest, card.digest, "the receipt's card_digest", "the card's is")
    for field in ("task_id", "model_digest", "parameters_id", "issuer", "price"):
        require(
            getattr(receipt, field), getattr(card, field), f"the receipt's {field}", "the card's is"
        )
    _check_mask(subject)
    return f"receipt {subject.file.receipt_digest} by {signed.node}"


def _check_mask(subject: ReceiptSubject) -> None:
    committed, seed = subject.answered.mask_commitment, subject.file.mask_seed
    if subject.card.weights == "public":
        require(committed, ZERO_DIGEST, "the mask commitment", "with public weights it is")
        if seed is not None:
            raise VerificationError("there is a mask seed, and with public weights nothing masked")
        return
    if committed == ZERO_DIGEST:
        raise VerificationError("the receipt commits to no mask, and the weights are secret")
    if seed is not None:
        found = mask_commitment(bytes.fromhex(seed[2:]))
        require(found, committed, "the mask seed's commitment", "the receipt's is")


def check_requester(subject: ReceiptSubject) -> str:
    """Step 3: the requester signed the request that the receipt is about."""
    signed, receipt = subject.file.request, subject.answered
    request = signed.check(subject.domain)
    require(signed.node, receipt.requester, "the request's signer", "the receipt's requester is")
    require(request.service, subject.card.service, "the service asked", "the one that answered is")
    for field in ("model_digest", "parameters_id", "request_digest", "rows"):
        require(
            getattr(request, field),
            getattr(receipt, field),
            f"the request's {field}",
            "the receipt's is",
        )
    if request.rows > subject.card.max_rows:
        raise VerificationError(
            f"{request.rows} rows were asked for; the card allows {subject.card.max_rows}"
        )
    apart = receipt.issued_at - request.issued_at
    if abs(apart) > MOST_APART_S:
        raise VerificationError(
            f"the receipt is dated {apart:+d} s from its request, more than {MOST_APART_S} s"
        )
    return f"rows: {request.rows}, asked for by {signed.node}"


def check_request(subject: ReceiptSubject) -> str:
    """Step 4: the request is the one that both signed."""
    request = subject.request
    require(request.digest, subject.answered.request_digest, "the request's digest", "signed is")
    require(request.rows, subject.answered.rows, "the request's rows", "signed are")
    return f"{len(subject.request_frame or b'')} bytes, {request.preset}"


def check_response(subject: ReceiptSubject) -> str:
    """Step 5: the response is the one that the service signed."""
    frame = subject.response_frame
    if frame is None:
        raise SkippedStep("the response is not at hand")
    digest = response_digest(frame)
    require(digest, subject.answered.response_digest, "the response's digest", "signed is")
    return f"{len(frame)} bytes"
