"""What is said and signed about private predictions: model card, request, receipt, anchoring.

A requester signs a `PredictionRequest` over its encrypted rows, the service signs a
`PredictionReceipt` over its encrypted answer, and an account of the service anchors the Merkle
root over a batch of receipts. A `ReceiptFile` holds all of that for one prediction; the request
and response frames that it speaks of stand beside it.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from twopm_flower.records.bundle import Deployment
from twopm_flower.records.fields import (
    Address,
    Digest,
    Name,
    Record,
    TransactionHash,
    Uint32,
    Uint53,
)
from twopm_flower.records.statements import Fields, Signed, Statement

CARD_FORMAT: Final = "twopm-flower/model-card/v1"
RECEIPT_FORMAT: Final = "twopm-flower/receipt/v1"
MAX_FEATURES: Final = 2048
MAX_CLASSES: Final = 2048
MAX_PROOF: Final = 32

LinkName = Literal["identity", "sigmoid", "softmax"]
Weights = Literal["public", "secret"]
Rows = Annotated[Uint32, Field(ge=1)]
Range = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PredictionRequest(Statement):
    """A requester asks a service for predictions of these encrypted rows by this model.

    ``request_digest`` is that of the request frame, which carries the rows; ``issued_at`` is
    in seconds since 1970.
    """

    TYPES: ClassVar[Fields] = {
        "service": ("service", "address"),
        "model_digest": ("modelDigest", "bytes32"),
        "parameters_id": ("parametersId", "bytes32"),
        "request_digest": ("requestDigest", "bytes32"),
        "rows": ("rows", "uint32"),
        "issued_at": ("issuedAt", "uint64"),
    }
    service: Address
    model_digest: Digest
    parameters_id: Digest
    request_digest: Digest
    rows: Rows
    issued_at: Uint53


class PredictionReceipt(Statement):
    """A service answered this request with this response, by this model, at this price.

    ``card_digest`` binds all else that the service said about the model, ``mask_commitment``
    the seed of what hides secret weights (zero where weights are public), ``issuer`` the
    account that anchors the receipt. ``price`` is in wei, ``issued_at`` in seconds since 1970.
    """

    TYPES: ClassVar[Fields] = {
        "task_id": ("taskId", "bytes32"),
        "card_digest": ("cardDigest", "bytes32"),
        "model_digest": ("modelDigest", "bytes32"),
        "parameters_id": ("parametersId", "bytes32"),
        "requester": ("requester", "address"),
        "request_digest": ("requestDigest", "bytes32"),
        "response_digest": ("responseDigest", "bytes32"),
        "mask_commitment": ("maskCommitment", "bytes32"),
        "issuer": ("issuer", "address"),
        "rows": ("rows", "uint32"),
        "price": ("price", "uint256"),
        "issued_at": ("issuedAt", "uint64"),
    }
    task_id: Digest
    card_digest: Digest
    model_digest: Digest
    parameters_id: Digest
    requester: Address
    request_digest: Digest
    response_digest: Digest
    mask_commitment: Digest
    issuer: Address
    rows: Rows
    price: Uint53
    issued_at: Uint53


class QueryBudget(Record):
    """How many rows one requester may have predicted in any period of so many seconds."""

    rows: Annotated[Uint53, Field(ge=1)]
    period_s: Annotated[Uint32, Field(ge=1)]


class ModelCard(Record):
    """What a service publishes about the model that it serves, the same to everybody.

    Attributes
    ----------
    format : str
        Fixed.
    deployment : Deployment
        The chain that knows the model, and that receipts are anchored on.
    task_id : str
        The task that the model is the outcome of.
    model_digest : str
        The digest that the chain has of it.
    layout : dict
        Names, shapes and order of its arrays, as ``Layout.to_dict`` gives them; with it
        whoever has the weights computes the digest.
    model_family : str
        The registered name of the family.
    link : {"identity", "sigmoid", "softmax"}
        What turns scores into results, after decryption. The sigmoid of one score belongs to
        the last of two classes.
    weights : {"public", "secret"}
        Whether anybody may have the weights; answers are masked if not.
    features : tuple of str
        Names of the inputs, in order.
    encoding : dict
        What the feature encoder says of itself.
    ranges : tuple of float
        Largest absolute value of each input.
    parameters : dict
        Parameters of the encryption, as ``LinearParameters.to_dict`` gives them.
    parameters_id : str
        Their digest.
    classes : tuple of str
        What the results are called, in order.
    service : str
        The account that signs receipts.
    issuer : str
        The account that anchors them.
    price : int
        For one request, in wei; 0 is free.
    query_budget : QueryBudget or None
        What each requester may ask for; None is without limit.
    max_rows : int
        The most rows of one request.
    """

    format: Literal["twopm-flower/model-card/v1"] = CARD_FORMAT
    deployment: Deployment
    task_id: Digest
    model_digest: Digest
    layout: dict[str, Any]
    model_family: Name
    link: LinkName
    weights: Weights
    features: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    encoding: dict[str, Any]
    ranges: Annotated[tuple[Range, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    parameters: dict[str, Any]
    parameters_id: Digest
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    service: Address
    issuer: Address
    price: Uint53
    query_budget: QueryBudget | None
    max_rows: Rows

    @model_validator(mode="after")
    def _consistent(self) -> "ModelCard":
        if len(self.ranges) != len(self.features):
            raise ValueError(f"{len(self.ranges)} ranges for {len(self.features)} features")
        for what, names in (("features", self.features), ("classes", self.classes)):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        return self

    @property
    def digest(self) -> str:
        """The digest in ``PredictionReceipt.card_digest``."""
        return self.tagged("model-card/v1")


class Anchoring(Record):
    """Where on chain the batch that holds a receipt is anchored, and the receipt's place in it.

    Attributes
    ----------
    issuer : str
        The account that anchored it.
    root : str
        Merkle root of the batch.
    count : int
        How many receipts the batch has.
    proof : tuple of str
        Sibling hashes from the receipt's leaf up to the root.
    transaction_hash, block_number
        Where it stands.
    """

    issuer: Address
    root: Digest
    count: Annotated[Uint32, Field(ge=1)]
    proof: Annotated[tuple[Digest, ...], Field(max_length=MAX_PROOF)]
    transaction_hash: TransactionHash
    block_number: Uint53


class ReceiptFile(Record):
    """One prediction as its requester keeps it: what both sides signed, and where it is anchored.

    Attributes
    ----------
    format : str
        Fixed.
    card : ModelCard
        What the service said of the model.
    request : Signed[PredictionRequest]
        What was asked.
    receipt : Signed[PredictionReceipt]
        What was answered.
    mask_seed : str or None
        Always None where weights are public. Where they are secret it is for an auditor who
        has the weights, too; a requester never gets it, for it could take the mask off.
    anchoring : Anchoring or None
        None as long as the receipt is not anchored.
    """

    format: Literal["twopm-flower/receipt/v1"] = RECEIPT_FORMAT
    card: ModelCard
    request: Signed[PredictionRequest]
    receipt: Signed[PredictionReceipt]
    mask_seed: Digest | None
    anchoring: Anchoring | None

    @property
    def receipt_digest(self) -> str:
        """What the service signed, and what a receipt is named by: its EIP-712 digest."""
        domain = self.card.deployment.receipt_domain
        return "0x" + self.receipt.statement.signing_hash(domain).hex()
