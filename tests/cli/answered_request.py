"""A request about a finished run's model, its answer, and where the receipt is anchored."""

import numpy as np

from twopm_flower.datasets.features import FeatureEncoder
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.linear_frame import parse_request, response_digest
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_request import encrypt_rows
from twopm_flower.privacy.linear_service import answer, mask_commitment
from twopm_flower.records.inference import (
    Anchoring,
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    ReceiptFile,
)
from twopm_flower.records.merkle import receipt_leaf
from twopm_flower.records.statements import sign
from twopm_flower.signer.keystore import LocalSigner


def answered(bundle, arrays, issuer, path):
    """Play a requester and a service: store the frames, and return the receipt, not anchored."""
    layout = Layout(
        tuple((array.name, array.shape) for array in bundle.terms.arrays),
        tuple(Metric(m.name, m.scale, m.maximum) for m in bundle.terms.train_metrics),
    )
    weight, bias = (arrays[name] for name, _ in layout.arrays)
    encoder = FeatureEncoder()
    parameters = LinearParameters.derive(weight, bias, np.array(encoder.ranges), "public")
    both = {
        "model_digest": bundle.finalisation.model_digest,
        "parameters_id": parameters.identifier,
    }
    service, requester = LocalSigner(b"\1" * 32), LocalSigner(b"\2" * 32)
    card = ModelCard(
        deployment=bundle.deployment,
        task_id=bundle.task_id,
        layout=layout.to_dict(),
        model_family="logistic-regression",
        link="sigmoid",
        weights="public",
        features=encoder.feature_names,
        encoding=encoder.describe(),
        ranges=encoder.ranges,
        parameters=parameters.to_dict(),
        classes=("fail", "pass"),
        service=service.address,
        issuer=issuer,
        price=0,
        query_budget=None,
        max_rows=10,
        **both,
    )
    x = encoder.encode_features(synthetic_students("mat", 3)).astype(np.float64)
    request, _ = encrypt_rows(x, parameters, "batch", model_digest=both["model_digest"])
    parsed = parse_request(request, parameters, model_digest=both["model_digest"], max_rows=10)
    prepared = PreparedLinear.of(QuantisedLinear.of(weight, bias, parameters), parameters)
    response = answer(parsed, prepared, None)
    path.with_suffix(".request").write_bytes(request)
    path.with_suffix(".response").write_bytes(response)
    both |= {"request_digest": parsed.digest, "rows": 3, "issued_at": 1_790_000_000}
    asked = PredictionRequest(service=service.address, **both)
    said = PredictionReceipt(
        task_id=bundle.task_id,
        card_digest=card.digest,
        requester=requester.address,
        response_digest=response_digest(response),
        mask_commitment=mask_commitment(None),
        issuer=issuer,
        price=0,
        **both,
    )
    domain = bundle.deployment.receipt_domain
    file = ReceiptFile(
        card=card,
        request=sign(asked, requester, domain),
        receipt=sign(said, service, domain),
        mask_seed=None,
        anchoring=None,
    )
    path.write_bytes(file.to_bytes())
    return file


def anchored(file, connector):
    """Anchor a receipt in a batch of its own."""
    root = "0x" + receipt_leaf(connector.account, file.receipt_digest).hex()
    found = connector.anchor_receipts(root, 1)
    place = Anchoring(
        issuer=found.issuer,
        root=root,
        count=1,
        proof=(),
        transaction_hash=found.transaction_hash,
        block_number=found.block_number,
    )
    return file.model_copy(update={"anchoring": place})
