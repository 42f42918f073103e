"""Steps 6 to 9 of a receipt: the answer computed again, the model and the batch on chain."""

from twopm_flower.errors import PrivacyError, ProvableFault, VerificationError
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.linear_frame import response_digest
from twopm_flower.privacy.linear_model import (
    LinearArrays,
    PreparedLinear,
    QuantisedLinear,
    is_linear,
)
from twopm_flower.privacy.linear_service import answer
from twopm_flower.records.inference import Anchoring
from twopm_flower.records.merkle import receipt_leaf, root_from_proof
from twopm_flower.verify.receipt_subject import ModelArrays, ReceiptSubject
from twopm_flower.verify.stepping import SkippedStep, require


def redo_answer(subject: ReceiptSubject) -> str:
    """Step 6: request, weights and mask seed give the response that the service signed.

    Raises
    ------
    ProvableFault
        They give another one, or the model does not fit the parameters on the card.
    """
    if subject.arrays is None:
        raise SkippedStep("the model's weights were not given (--model)")
    seed = subject.file.mask_seed
    if subject.card.weights == "secret" and seed is None:
        raise SkippedStep("the answer is masked, and the file has no mask seed: ask the service")
    request = subject.request
    model = linear_arrays(subject, subject.arrays)
    try:
        quantised = QuantisedLinear.of(model.weight, model.bias, subject.parameters)
    except PrivacyError as error:
        raise _fault(subject, f"parameters that its model does not fit: {error.message}") from error
    prepared = PreparedLinear.of(quantised, subject.parameters)
    redone = answer(request, prepared, None if seed is None else bytes.fromhex(seed[2:]))
    digest, signed = response_digest(redone), subject.answered.response_digest
    if digest != signed:
        raise _fault(
            subject,
            f"the response {signed}; model {subject.answered.model_digest} answers this request "
            f"with {digest}",
        )
    return f"model {subject.answered.model_digest} gives this response"


def _fault(subject: ReceiptSubject, signed: str) -> ProvableFault:
    return ProvableFault(
        f"PROVABLE FAULT: {subject.card.service} signed {signed}",
        hint="Publish the receipt file, the request and the model: whoever runs this command on "
        "them sees the same.",
    )


def linear_arrays(subject: ReceiptSubject, arrays: ModelArrays) -> LinearArrays:
    """Return weights and biases of a model, if it is the one of the receipt.

    Raises
    ------
    VerificationError
        It is another one, which says nothing about the service.
    """
    layout = Layout.from_dict(subject.card.layout)
    if not is_linear(layout):
        shapes = [shape for _, shape in layout.arrays]
        raise VerificationError(f"the card's layout {shapes} is not that of a linear model")
    try:
        found = LinearArrays.of(layout, arrays)
    except PrivacyError as error:
        raise VerificationError(f"the model given is not that of the receipt: {error}") from error
    if found.digest != subject.answered.model_digest:
        raise VerificationError(
            f"the model given has the digest {found.digest}; the receipt is about "
            f"{subject.answered.model_digest}",
            hint="This says nothing about the service: give the model that it served.",
        )
    return found


def check_model(subject: ReceiptSubject) -> str:
    """Step 7: the model is the outcome of a finalised task on this chain."""
    chain = subject.require_chain()
    stated, pinned = subject.card.deployment, chain.deployment()
    for field in type(stated).model_fields:
        require(
            getattr(stated, field), getattr(pinned, field), f"deployment.{field}", "the chain's is"
        )
    task_id, model = subject.answered.task_id, subject.answered.model_digest
    task = chain.task(task_id)
    require(task.state, "finalised", f"task {task_id} on chain", "a model is final when it is")
    require(model, task.model_digest, "the receipt's model_digest", "the task's on chain is")
    return f"model {model} is final in task {task_id}"


def _anchoring(subject: ReceiptSubject) -> Anchoring:
    if subject.file.anchoring is None:
        raise SkippedStep("the receipt is not anchored")
    return subject.file.anchoring


def check_inclusion(subject: ReceiptSubject) -> str:
    """Step 8: the proof leads from the receipt to the root of a batch of its issuer."""
    anchoring = _anchoring(subject)
    require(anchoring.issuer, subject.answered.issuer, "the batch's issuer", "the receipt's is")
    depths = {anchoring.count.bit_length() - 1, (2 * anchoring.count - 1).bit_length() - 1}
    if len(anchoring.proof) not in depths:
        raise VerificationError(
            f"the proof has {len(anchoring.proof)} hashes; in a batch of {anchoring.count} a "
            f"receipt has {' or '.join(map(str, sorted(depths)))}"
        )
    leaf = receipt_leaf(anchoring.issuer, subject.file.receipt_digest)
    siblings = [bytes.fromhex(sibling[2:]) for sibling in anchoring.proof]
    root = "0x" + root_from_proof(leaf, siblings).hex()
    require(root, anchoring.root, "the root that the proof leads to", "the batch's is")
    return f"one of {anchoring.count} receipts under {root}"


def check_anchor(subject: ReceiptSubject) -> str:
    """Step 9: the chain has this batch, anchored by this issuer, where the file says."""
    anchoring = _anchoring(subject)
    found = subject.require_chain().receipt_anchor(anchoring.issuer, anchoring.root)
    if found is None:
        raise VerificationError(
            f"the chain has no batch {anchoring.root} of {anchoring.issuer}",
            hint="'twopm infer receipts --fetch --chain chain.toml' asks the service again.",
        )
    for field in ("issuer", "root", "count", "transaction_hash", "block_number"):
        require(
            getattr(anchoring, field), getattr(found, field), f"the batch's {field}", "on chain is"
        )
    receipts = "1 receipt" if anchoring.count == 1 else f"{anchoring.count} receipts"
    return f"{receipts} anchored in block {anchoring.block_number}"
