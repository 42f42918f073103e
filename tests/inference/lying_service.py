"""A prediction service in one function, honest unless a test makes it lie about one thing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import numpy as np

from twopm_flower.datasets import FeatureEncoder
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.inference.envelope import pack_answer, unpack_request
from twopm_flower.models.centralised import fit_centralised
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.linear_frame import parse_request, response_digest
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_service import answer, mask_commitment
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.inference import ModelCard, PredictionReceipt, PredictionRequest
from twopm_flower.records.statements import Signed, sign
from twopm_flower.records.terms import model_digest
from twopm_flower.signer.keystore import LocalSigner

SERVICE = LocalSigner(b"\x51" * 32)
ISSUER = LocalSigner(b"\x52" * 32)
MASK_SEED = b"\x53" * 32


def word(label: str) -> str:
    """A digest that stands for something that is not looked into."""
    return tagged_digest("stand-in/v1", label.encode())


DEPLOYMENT = Deployment(
    chain_id=2_718_281_828,
    genesis_hash=word("genesis"),
    node_registry="0x" + "00" * 19 + "11",
    task_registry="0x" + "00" * 19 + "22",
    data_registry="0x" + "00" * 19 + "33",
    receipt_registry="0x" + "00" * 19 + "44",
)


@dataclass
class Service:
    """A model, its card, and what happens to a request.

    Attributes
    ----------
    card_changes, receipt_changes : dict
        What the card and the receipt say instead of the truth.
    signer : LocalSigner
        Who signs the receipt.
    spoil : callable
        Changes the response frame after the receipt was made.
    mask_seed_shown : bytes or None
        What is shown as the seed of the mask.
    anchorings : dict
        What is said of a receipt, by its digest; of others nothing is known.
    seen : list
        All requests.
    """

    weight: np.ndarray
    bias: np.ndarray
    classes: tuple[str, ...] = ("fail", "pass")
    policy: str = "public"
    parameters: LinearParameters | None = None
    setup: str = "A"
    target: str = "pass"
    card_changes: dict[str, Any] = field(default_factory=dict)
    receipt_changes: dict[str, Any] = field(default_factory=dict)
    signer: LocalSigner = SERVICE
    spoil: Callable[[bytes], bytes] = lambda frame: frame
    mask_seed_shown: bytes | None = None
    anchorings: dict[str, Any] = field(default_factory=dict)
    seen: list[httpx.Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoder = FeatureEncoder(self.setup, self.target)
        self.parameters = self.parameters or LinearParameters.derive(
            self.weight, self.bias, np.array(self.encoder.ranges), self.policy
        )
        quantised = QuantisedLinear.of(self.weight, self.bias, self.parameters)
        self.prepared = PreparedLinear.of(quantised, self.parameters)
        layout = Layout.of({"weight": self.weight, "bias": self.bias})
        self.honest_card = ModelCard(
            deployment=DEPLOYMENT,
            task_id=word("task"),
            model_digest=model_digest(layout.digest, self.weight.tobytes() + self.bias.tobytes()),
            layout=layout.to_dict(),
            model_family="logistic-regression",
            link="sigmoid" if len(self.weight) == 1 else "softmax",
            weights=self.policy,
            features=self.encoder.feature_names,
            encoding=self.encoder.describe(),
            ranges=self.encoder.ranges,
            parameters=self.parameters.to_dict(),
            parameters_id=self.parameters.identifier,
            classes=self.classes,
            service=SERVICE.address,
            issuer=ISSUER.address,
            price=0,
            query_budget=None,
            max_rows=1000,
        )

    @property
    def card(self) -> ModelCard:
        return self.honest_card.model_copy(update=self.card_changes)

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one HTTP request."""
        self.seen.append(request)
        if request.url.path == "/v1/model":
            return _found(self.card.to_bytes())
        if request.url.path == "/v1/predictions":
            return _found(self.predict(request.content))
        digest = request.url.path.removeprefix("/v1/receipts/")
        if digest not in self.anchorings:
            return httpx.Response(404, stream=httpx.ByteStream(b""))
        return _found(canonical_bytes({"anchoring": self.anchorings[digest]}))

    def predict(self, body: bytes) -> bytes:
        """Return the answer to the body of a request."""
        signed, frame = unpack_request(body)
        asked = parse_request(
            frame, self.parameters, model_digest=self.card.model_digest, max_rows=1000
        )
        seed = MASK_SEED if self.policy == "secret" else None
        response = answer(asked, self.prepared, seed)
        receipt = self.receipt(signed, response, seed)
        return pack_answer(receipt, self.mask_seed_shown, self.spoil(response))

    def receipt(
        self, signed: Signed[PredictionRequest], response: bytes, seed: bytes | None
    ) -> Signed[PredictionReceipt]:
        statement = PredictionReceipt(
            task_id=self.card.task_id,
            card_digest=self.card.digest,
            model_digest=signed.statement.model_digest,
            parameters_id=signed.statement.parameters_id,
            requester=signed.node,
            request_digest=signed.statement.request_digest,
            response_digest=response_digest(response),
            mask_commitment=mask_commitment(seed),
            issuer=self.card.issuer,
            rows=signed.statement.rows,
            price=self.card.price,
            issued_at=signed.statement.issued_at,
        ).model_copy(update=self.receipt_changes)
        return sign(statement, self.signer, DEPLOYMENT.receipt_domain)


def _found(body: bytes) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(body))


def small_service(policy: str = "public", **changes: Any) -> Service:
    """Return a service with a model of made-up students."""
    weight, bias, parameters = _small_model(policy)
    return Service(weight, bias, policy=policy, parameters=parameters, **changes)


@cache
def _small_model(policy: str) -> tuple[np.ndarray, np.ndarray, LinearParameters]:
    students = synthetic_students("mat", 120)
    encoder = FeatureEncoder("A", "pass")
    arrays = fit_centralised(*encoder.encode(students))
    weight, bias = arrays["weight"], arrays["bias"]
    return weight, bias, LinearParameters.derive(weight, bias, np.array(encoder.ranges), policy)
