"""The verifier of receipts: a numbered checklist over what a requester kept of a prediction.

What must hold for an answer to be the one that its service is bound to, by its signature and,
once it is anchored, by the chain:

 1. The receipt has one encoding only; the parameters on the card are the ones that their digest
    names, for as many features and scores, and for public or secret weights.
 2. The service of the card signed the receipt, over this card; task, model, parameters, issuer
    and price are the card's. It commits to a mask exactly where weights are secret.
 3. The requester signed the request, for this service, and the receipt is about that request.
 4. The request is the one that both signed. [needs the request]
 5. The response is the one that the service signed. [needs the response]
 6. The model gives this response to this request. Where it does not, the service is at fault,
    and its signature proves it. [needs request and weights; the mask seed where weights are
    secret]
 7. The model is the outcome of a finalised task on this chain. [needs a chain]
 8. The proof leads from the receipt to the root of a batch of its issuer. [needs an anchoring]
 9. The chain has that batch, of this issuer, with this count, where the file says.
    [needs an anchoring and a chain]

The first step that does not hold ends the verification: later steps build on it. Step 6 comes
before the chain's, so that no lie about anchoring hides a wrong answer.
The code below and in the modules of the steps follows the same numbers.
"""

from collections.abc import Callable, Iterator
from typing import Final

from twopm_flower.errors import ProvableFault
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.verify.chain_view import ReceiptChainView
from twopm_flower.verify.receipt_outcome import (
    check_anchor,
    check_inclusion,
    check_model,
    redo_answer,
)
from twopm_flower.verify.receipt_report import ReceiptLevel, ReceiptReport
from twopm_flower.verify.receipt_steps import (
    check_form,
    check_request,
    check_requester,
    check_response,
    check_service,
)
from twopm_flower.verify.receipt_subject import ModelArrays, ReceiptSubject
from twopm_flower.verify.report import StepResult
from twopm_flower.verify.stepping import Step, run_steps

RECEIPT_STEPS: Final[tuple[Step[ReceiptSubject], ...]] = (
    ("card and parameters", check_form),  # 1
    ("service's signature", check_service),  # 2
    ("requester's signature", check_requester),  # 3
    ("request as signed", check_request),  # 4
    ("response as signed", check_response),  # 5
    ("answer redone", redo_answer),  # 6
    ("model on chain", check_model),  # 7
    ("place in its batch", check_inclusion),  # 8
    ("batch on chain", check_anchor),  # 9
)
COMPARED_STEPS: Final = (4, 5)
REDONE_STEP: Final = 6
ANCHORED_STEPS: Final = (7, 8, 9)


def verify_receipt(
    file: ReceiptFile,
    request_frame: bytes | None,
    response_frame: bytes | None,
    *,
    chain: ReceiptChainView | None,
    arrays: ModelArrays | None = None,
    progress: Callable[[StepResult], None] | None = None,
) -> ReceiptReport:
    """Go through the checklist.

    Parameters
    ----------
    file : ReceiptFile
        What the requester kept.
    request_frame, response_frame : bytes or None
        What went over the wire; without them the steps that need them are skipped.
    chain : ReceiptChainView or None
        A reader of the chain that the receipt should be anchored on; without one, or where it
        does not answer, the report says "not anchored".
    arrays : mapping of str to ndarray of float32, optional
        The model's arrays by name, to compute the answer again with.
    progress : callable, optional
        Called with each step's result, as it is known.

    Returns
    -------
    ReceiptReport
        Never raises for what is wrong with the receipt: the report says it.
    """
    subject = ReceiptSubject(file, request_frame, response_frame, chain, arrays)
    outcome = run_steps(RECEIPT_STEPS, subject, progress)
    level: ReceiptLevel = "signed"
    if outcome.passed.issuperset(COMPARED_STEPS):
        level = "redone" if REDONE_STEP in outcome.passed else "compared"
    anchored = outcome.passed.issuperset(ANCHORED_STEPS)
    answered = file.receipt.statement
    return ReceiptReport(
        receipt_digest=file.receipt_digest,
        task_id=answered.task_id,
        model_digest=answered.model_digest,
        service=file.receipt.node,
        requester=file.request.node,
        rows=answered.rows,
        price=answered.price,
        issued_at=answered.issued_at,
        steps=outcome.steps,
        level=level,
        anchored=anchored,
        fault=isinstance(outcome.failure, ProvableFault),
        notes=tuple(_notes(file, level=level, anchored=anchored)),
    )


def _notes(file: ReceiptFile, *, level: ReceiptLevel, anchored: bool) -> Iterator[str]:
    if level == "signed":
        yield "Signatures alone were checked: request and response are not both at hand."
    if level != "redone":
        redo = "anybody who has them can (--model)"
        if file.card.weights == "secret":
            redo = "that takes the secret weights and the mask seed, which an auditor may be given"
        yield f"The answer was not computed again from the weights: {redo}."
    if not anchored and file.anchoring is None:
        yield (
            "Not anchored: the service's signature binds it, but nothing shows when it was made. "
            "'twopm infer receipts --fetch' asks where it is anchored."
        )
    elif not anchored:
        yield "Not anchored: no chain confirms what the file says of its batch and its model."
    yield "That the model is the one that its members agreed on is for 'twopm verify' of its run."
