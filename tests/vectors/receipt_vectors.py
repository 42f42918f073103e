"""The vector of a receipt: a model card, what both sides signed, and a batch of three."""

from eth_utils.crypto import keccak

from twopm_flower.privacy.layout import Layout
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.inference import (
    Anchoring,
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    QueryBudget,
    ReceiptFile,
)
from twopm_flower.records.merkle import MerkleTree, receipt_leaf
from twopm_flower.records.statements import sign
from twopm_flower.signer.keystore import LocalSigner

SERVICE, REQUESTER, ISSUER = (LocalSigner(bytes([number]) * 32) for number in (1, 2, 3))


def d(byte):
    """A digest of one repeated byte."""
    return "0x" + f"{byte:02x}" * 32


def _card():
    return ModelCard(
        deployment=Deployment(
            chain_id=2_718_281_828,
            genesis_hash=d(1),
            node_registry="0x" + "00" * 19 + "11",
            task_registry="0x" + "00" * 19 + "22",
            data_registry="0x" + "00" * 19 + "44",
            receipt_registry="0x" + "00" * 19 + "55",
        ),
        task_id=d(2),
        model_digest=d(3),
        layout=Layout((("weight", (1, 2)), ("bias", (1,)))).to_dict(),
        model_family="logistic-regression",
        link="sigmoid",
        weights="secret",
        features=("age", "G2"),
        encoding={"setup": "A"},
        ranges=(1.0, 4.0),
        parameters={"features": 2},
        parameters_id=d(4),
        classes=("fail", "pass"),
        service=SERVICE.address,
        issuer=ISSUER.address,
        price=7,
        query_budget=QueryBudget(rows=1000, period_s=86_400),
        max_rows=100,
    )


def receipt():
    """A receipt with its card and anchoring, for a batch of three; parameters are none."""
    card = _card()
    domain = card.deployment.receipt_domain
    request = PredictionRequest(
        service=SERVICE.address,
        model_digest=d(3),
        parameters_id=d(4),
        request_digest=d(5),
        rows=2,
        issued_at=1_790_000_000,
    )
    answered = PredictionReceipt(
        task_id=d(2),
        card_digest=card.digest,
        model_digest=d(3),
        parameters_id=d(4),
        requester=REQUESTER.address,
        request_digest=d(5),
        response_digest=d(6),
        mask_commitment=d(7),
        issuer=ISSUER.address,
        rows=2,
        price=7,
        issued_at=1_790_000_001,
    )
    digest = "0x" + answered.signing_hash(domain).hex()
    leaf, *others = (receipt_leaf(ISSUER.address, each) for each in (digest, d(8), d(9)))
    tree = MerkleTree.of([leaf, *others])
    types = []
    for statement in (request, answered):
        members = ",".join(f"{kind} {name}" for name, kind in statement.TYPES.values())
        encoded = f"{type(statement).__name__}({members})"
        types.append({"type": encoded, "type_hash": "0x" + keccak(encoded.encode()).hex()})
    file = ReceiptFile(
        card=card,
        request=sign(request, REQUESTER, domain),
        receipt=sign(answered, SERVICE, domain),
        mask_seed=None,
        anchoring=Anchoring(
            issuer=ISSUER.address,
            root="0x" + tree.root.hex(),
            count=3,
            proof=tuple("0x" + sibling.hex() for sibling in tree.proof(leaf)),
            transaction_hash=d(10),
            block_number=11,
        ),
    )
    return {
        "types": types,
        "card_digest": card.digest,
        "receipt_digest": digest,
        "leaf": "0x" + leaf.hex(),
        "file": file.to_json(),
    }
