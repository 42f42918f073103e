"""A prediction in memory: real signatures, ciphertexts and proofs, a chain of a few values.

A test changes one thing that the service says or does, and all that follows is made
consistently and signed; or it changes the finished receipt, the frames or the chain.
"""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from memory_chain import MemoryChain, word

from twopm_flower.chain.base import Finalisation, ReceiptAnchor, TaskState
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.linear_frame import parse_request, request_digest, response_digest
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_request import encrypt_rows
from twopm_flower.privacy.linear_service import answer, mask_commitment
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.inference import (
    Anchoring,
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    ReceiptFile,
)
from twopm_flower.records.merkle import MerkleTree, receipt_leaf
from twopm_flower.records.statements import sign
from twopm_flower.records.terms import model_digest
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.verify.receipt import verify_receipt

SERVICE, REQUESTER, ISSUER, STRANGER = (LocalSigner(bytes([n]) * 32) for n in (1, 2, 3, 4))
SEED = bytes(range(32))
WEIGHT = np.array([[0.5, -1.25, 2.0]], np.float32)
BIAS = np.array([0.125], np.float32)
RANGES = (1.0, 1.0, 4.0)
LAYOUT = Layout((("weight", (1, 3)), ("bias", (1,))), (Metric("rows", 1, 1000.0),))
TASK = word("task")


def deployment():
    return Deployment(
        chain_id=2_718_281_828,
        genesis_hash=word("genesis"),
        node_registry="0x" + "00" * 19 + "11",
        task_registry="0x" + "00" * 19 + "22",
        data_registry="0x" + "00" * 19 + "44",
        receipt_registry="0x" + "00" * 19 + "55",
    )


@dataclass
class AnchoredChain(MemoryChain):
    """A chain that holds batches of receipts, too."""

    anchors: dict = field(default_factory=dict)

    def receipt_anchor(self, issuer, root):
        return self.anchors.get((issuer, root))

    def anchor(self, issuer, root, count):
        number = len(self.anchors) + 1
        self.anchors[issuer, root] = ReceiptAnchor(
            issuer=issuer,
            root=root,
            count=count,
            block_number=700 + number,
            block_hash=word(f"anchor block {number}"),
            transaction_hash=word(f"anchor {number}"),
        )
        return self.anchors[issuer, root]


def digest_of(weight, bias):
    return model_digest(LAYOUT.digest, weight.astype("<f4").tobytes() + bias.tobytes())


@dataclass
class Prediction:
    """All that a requester keeps of one prediction, and the chain."""

    file: ReceiptFile
    request: bytes
    response: bytes
    chain: AnchoredChain
    arrays: dict

    def verify(self, **changes):
        """Verify it, with what a test gives instead."""
        given = {
            "file": self.file,
            "request": self.request,
            "response": self.response,
            "chain": self.chain,
            "arrays": self.arrays,
        } | changes
        return verify_receipt(
            given["file"],
            given["request"],
            given["response"],
            chain=given["chain"],
            arrays=given["arrays"],
        )

    def with_file(self, **changes):
        return replace(self, file=self.file.model_copy(update=changes))


def final_chain(pinned, digest):
    """A chain on which the task ended with a model."""
    state = TaskState(
        task_id=TASK,
        coordinator="0x" + "00" * 19 + "33",
        terms_digest=word("terms"),
        state="finalised",
        rounds=1,
        last_round=1,
        last_attempt=1,
        head=word("head"),
        roster_digest=word("roster"),
        members=3,
        min_contributors=3,
        quorum=2,
        max_samples=500,
        model_digest=digest,
    )
    final = Finalisation(
        TASK, digest, word("metrics"), word("head"), 3, 500, word("block"), word("final")
    )
    return AnchoredChain(pinned=pinned, state=state, roster=(), final=final)


@cache
def derived(policy):
    """The parameters that the model has."""
    return LinearParameters.derive(WEIGHT, BIAS, np.array(RANGES), policy)


@cache
def _encrypted(parameters, rows, batched):
    """Encrypt once for all tests: who may open the answer does not matter here."""
    x = np.linspace(-1.0, 0.75, 3 * rows).reshape(rows, 3)
    preset = "batch" if batched else "latency"
    frame, _ = encrypt_rows(x, parameters, preset, model_digest=digest_of(WEIGHT, BIAS))
    return frame


def honest_answer(parameters, frame, *, weight=WEIGHT, bias=BIAS, seed=None):
    """What a model answers."""
    request = parse_request(
        frame, parameters, model_digest=digest_of(WEIGHT, BIAS), max_rows=10_000
    )
    quantised = QuantisedLinear.of(weight, bias, parameters)
    return answer(request, PreparedLinear.of(quantised, parameters), seed)


def predict(
    *,
    policy="public",
    rows=1,
    batched=False,
    parameters=None,
    card=None,
    request=None,
    receipt=None,
    answered_by=None,
    masked_by=SEED,
    seed=None,
    batch=3,
    anchored=True,
    signers=(REQUESTER, SERVICE),
):
    """Return a prediction.

    `card`, `request` and `receipt` change fields before they are signed, and `parameters` are
    those of the card; `answered_by` is the weight that the service really uses, `masked_by` the
    seed; `seed` is in the file.
    """
    parameters = parameters or derived(policy)
    frame = _encrypted(parameters, rows, batched)
    secret = policy == "secret"
    mask = masked_by if secret else None
    response = honest_answer(
        parameters, frame, weight=WEIGHT if answered_by is None else answered_by, seed=mask
    )
    fields = {
        "deployment": deployment(),
        "task_id": TASK,
        "model_digest": digest_of(WEIGHT, BIAS),
        "layout": LAYOUT.to_dict(),
        "model_family": "logistic-regression",
        "link": "sigmoid",
        "weights": policy,
        "features": ("age", "sex=F", "G2"),
        "encoding": {"setup": "A"},
        "ranges": RANGES,
        "parameters": parameters.to_dict(),
        "parameters_id": parameters.identifier,
        "classes": ("fail", "pass"),
        "service": SERVICE.address,
        "issuer": ISSUER.address,
        "price": 7,
        "query_budget": None,
        "max_rows": 100,
    }
    stated = ModelCard(**{**fields, **(card or {})})
    domain = stated.deployment.receipt_domain
    asked = {
        "service": stated.service,
        "model_digest": stated.model_digest,
        "parameters_id": stated.parameters_id,
        "request_digest": request_digest(frame),
        "rows": rows,
        "issued_at": 1_790_000_000,
    }
    asked = PredictionRequest(**{**asked, **(request or {})})
    said = {
        "task_id": stated.task_id,
        "card_digest": stated.digest,
        "model_digest": asked.model_digest,
        "parameters_id": asked.parameters_id,
        "requester": signers[0].address,
        "request_digest": asked.request_digest,
        "response_digest": response_digest(response),
        "mask_commitment": mask_commitment(SEED) if secret else ZERO_DIGEST,
        "issuer": stated.issuer,
        "rows": asked.rows,
        "price": stated.price,
        "issued_at": 1_790_000_001,
    }
    said = PredictionReceipt(**{**said, **(receipt or {})})
    file = ReceiptFile(
        card=stated,
        request=sign(asked, signers[0], domain),
        receipt=sign(said, signers[1], domain),
        mask_seed=None if seed is None else "0x" + seed.hex(),
        anchoring=None,
    )
    chain = final_chain(deployment(), digest_of(WEIGHT, BIAS))
    if anchored:
        file = file.model_copy(update={"anchoring": anchor(chain, file, batch)})
    return Prediction(file, frame, response, chain, {"weight": WEIGHT, "bias": BIAS})


def anchor(chain, file, count=3, *, issuer=None):
    """Anchor a receipt in a batch with others, and return where."""
    issuer = issuer or file.receipt.statement.issuer
    digests = [file.receipt_digest, *(word(f"receipt {n}") for n in range(count - 1))]
    leaf, *others = (receipt_leaf(issuer, each) for each in digests)
    tree = MerkleTree.of([leaf, *others])
    found = chain.anchor(issuer, "0x" + tree.root.hex(), count)
    return Anchoring(
        issuer=found.issuer,
        root=found.root,
        count=found.count,
        proof=tuple("0x" + sibling.hex() for sibling in tree.proof(leaf)),
        transaction_hash=found.transaction_hash,
        block_number=found.block_number,
    )
