"""What a service does with one request, from the bytes that came to the bytes that leave.

Everything from outside is checked in this order: envelope; that it is for this service, model and
parameters; time; the encrypted frame; the signature; membership; the budget. Only then is
anything computed, and it is signed and stored before it leaves. Knows nothing of HTTP.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final

from twopm_flower.errors import (
    BindingError,
    InferenceRefused,
    PrivacyError,
    RecordError,
    SignatureError,
)
from twopm_flower.inference.envelope import CLOCK_TOLERANCE_S, pack_answer, unpack_request
from twopm_flower.inference.receipt_store import Batch, ReceiptStore, anchoring_of
from twopm_flower.inference.served_model import ServedModel
from twopm_flower.privacy import linear_numpy
from twopm_flower.privacy.linear_frame import (
    LinearRequest,
    parse_request,
    response_digest,
)
from twopm_flower.privacy.linear_service import (
    LinearRing,
    answer,
    mask_commitment,
    mask_seed_for,
)
from twopm_flower.records.inference import Anchoring, PredictionReceipt, PredictionRequest
from twopm_flower.records.merkle import MerkleTree, receipt_leaf
from twopm_flower.records.statements import Signed, TypedDataSigner, sign

MOST_TREES: Final = 64
"""Of how many batches a worker keeps the trees that proofs are read from."""


class BudgetUsed(InferenceRefused):
    """A requester asked for more rows than its budget has left.

    Parameters
    ----------
    message : str
    retry_after_s : int
        When there is budget again.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, hint=f"Try again in {retry_after_s} s.", status=429)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Answered:
    """The body of an answer, and how many rows it is about."""

    body: bytes
    rows: int


@dataclass(frozen=True)
class Desk:
    """Answers requests for predictions by one model.

    Attributes
    ----------
    model : ServedModel
    signer : TypedDataSigner
        The service's account.
    store : ReceiptStore
    mask_key : bytes or None
        What masks grow from, where weights are secret.
    allowed : frozenset of str or None
        The requesters that are answered; all, if None.
    ring : LinearRing
        What computes.
    now : callable
        Returns the time as seconds since 1970.
    """

    model: ServedModel
    signer: TypedDataSigner
    store: ReceiptStore
    mask_key: bytes | None = None
    allowed: frozenset[str] | None = None
    ring: LinearRing | ModuleType = linear_numpy
    now: Callable[[], float] = time.time
    _trees: dict[int, MerkleTree] = field(default_factory=dict, init=False, repr=False)

    def answer(self, body: bytes) -> Answered:
        """Return the answer to the body of a request.

        A request that was answered before gets the same answer with the same receipt, and takes
        nothing of the budget.

        Raises
        ------
        InferenceRefused
            The request is not answered; its ``status`` is HTTP's.
        """
        signed, request = self._checked(body)
        seed = None if self.mask_key is None else mask_seed_for(self.mask_key, request.digest)
        known = self.store.find(request.digest, signed.node)
        if known is None:
            self._check_budget(signed)
        response = answer(request, self.model.prepared, seed, self.ring)
        if known is not None and known.statement.response_digest != response_digest(response):
            # Under another mask key: two masks of one request would tell more than one does.
            raise InferenceRefused(
                "the request was answered before, with a receipt for another answer",
                hint="Encrypt the rows again.",
                status=409,
            )
        receipt = known or self._receipt(signed, response, seed)
        return Answered(pack_answer(receipt, None, response), request.rows)

    def anchoring(self, receipt: str) -> Anchoring | None:
        """Return where a receipt is anchored, or None as long as it is not.

        Raises
        ------
        InferenceRefused
            There is no such receipt.
        """
        known, batch = self.store.batch_of(receipt)
        if not known:
            raise InferenceRefused(f"there is no receipt {receipt}", status=404)
        if batch is None or batch.block_number is None:
            return None
        proof = self._tree(batch).proof(receipt_leaf(batch.issuer, receipt))
        return anchoring_of(batch, proof)

    def _tree(self, batch: Batch) -> MerkleTree:
        # Of the order of 100 us for each receipt of a batch, and anybody may ask for each.
        tree = self._trees.get(batch.number)
        if tree is None:
            digests = self.store.digests_in(batch)
            tree = MerkleTree.of([receipt_leaf(batch.issuer, digest) for digest in digests])
            if len(self._trees) >= MOST_TREES:
                self._trees.clear()
            self._trees[batch.number] = tree
        return tree

    def _checked(self, body: bytes) -> tuple[Signed[PredictionRequest], LinearRequest]:
        try:
            signed, frame = unpack_request(body)
        except RecordError as error:
            raise InferenceRefused(error.message, status=400) from error
        self._check_statement(signed.statement)
        request = self._parsed(frame)
        said = signed.statement
        if (request.digest, request.rows) != (said.request_digest, said.rows):
            raise InferenceRefused("what is signed is about other encrypted rows", status=400)
        try:
            signed.check(self.model.domain)
        except SignatureError as error:
            raise InferenceRefused(error.message, status=401) from error
        if self.allowed is not None and signed.node not in self.allowed:
            raise InferenceRefused(
                f"{signed.node} is not among those who are answered here",
                hint="Ask the operator of the service to add your address.",
                status=403,
            )
        return signed, request

    def _check_statement(self, said: PredictionRequest) -> None:
        card = self.model.card
        for what, found, served in (
            ("service", said.service, card.service),
            ("model", said.model_digest, card.model_digest),
            ("parameters", said.parameters_id, card.parameters_id),
        ):
            if found != served:
                raise InferenceRefused(
                    f"the request is for the {what} {found}; here it is {served}",
                    hint="Read the model card again: GET /v1/model.",
                    status=404,
                )
        late_s = self.now() - said.issued_at
        if abs(late_s) > CLOCK_TOLERANCE_S:
            raise InferenceRefused(
                f"the request is dated {-late_s:+.0f} s from the service's time",
                hint="Set the clock, and sign the request again.",
                status=409,
            )

    def _parsed(self, frame: bytes) -> LinearRequest:
        card = self.model.card
        try:
            return parse_request(
                frame,
                self.model.prepared.parameters,
                model_digest=card.model_digest,
                max_rows=card.max_rows,
            )
        except BindingError as error:
            raise InferenceRefused(error.message, status=404) from error
        except PrivacyError as error:
            raise InferenceRefused(error.message, status=400) from error

    def _check_budget(self, signed: Signed[PredictionRequest]) -> None:
        wait_s = self.store.wait_for_budget(
            self.model.card.query_budget, signed.node, signed.statement.rows, int(self.now())
        )
        if wait_s:
            raise self._budget_used(signed.node, wait_s)

    def _receipt(
        self, signed: Signed[PredictionRequest], response: bytes, seed: bytes | None
    ) -> Signed[PredictionReceipt]:
        card, said = self.model.card, signed.statement
        statement = PredictionReceipt(
            task_id=card.task_id,
            card_digest=self.model.card_digest,
            model_digest=card.model_digest,
            parameters_id=card.parameters_id,
            requester=signed.node,
            request_digest=said.request_digest,
            response_digest=response_digest(response),
            mask_commitment=mask_commitment(seed),
            issuer=card.issuer,
            rows=said.rows,
            price=card.price,
            issued_at=int(self.now()),
        )
        digest = "0x" + statement.signing_hash(self.model.domain).hex()
        receipt = sign(statement, self.signer, self.model.domain)
        kept, wait_s = self.store.keep(receipt, digest, card.query_budget)
        if wait_s:
            raise self._budget_used(signed.node, wait_s)
        return kept

    def _budget_used(self, requester: str, wait_s: int) -> BudgetUsed:
        budget = self.model.card.query_budget
        rows = 0 if budget is None else budget.rows
        period_s = 0 if budget is None else budget.period_s
        return BudgetUsed(
            f"{requester} may ask for {rows} rows in {period_s} s, and this would be more",
            retry_after_s=wait_s,
        )
