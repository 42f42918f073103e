"""Requests as an honest requester makes them, with any one thing changed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from lying_service import DEPLOYMENT, Service, small_service

from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.inference.envelope import pack_request, unpack_answer
from twopm_flower.privacy.linear_frame import request_digest
from twopm_flower.privacy.linear_request import RequestKey, encrypt_rows, open_scores
from twopm_flower.records.inference import PredictionReceipt, PredictionRequest
from twopm_flower.records.statements import Signed, sign
from twopm_flower.signer.keystore import LocalSigner

REQUESTER = LocalSigner(b"\x61" * 32)
ANOTHER = LocalSigner(b"\x62" * 32)
NOW = 1_790_000_000
STUDENTS = small_service().encoder.encode_features(synthetic_students("por", 9)).astype(np.float64)


@dataclass(frozen=True)
class Answer:
    """An answer that was opened."""

    receipt: Signed[PredictionReceipt]
    response: bytes
    scores: np.ndarray


@dataclass(frozen=True)
class Ask:
    """A request, and the key that opens its answer."""

    frame: bytes
    key: RequestKey
    statement: PredictionRequest

    def body(self, signer: LocalSigner = REQUESTER, **changes: Any) -> bytes:
        """Return what is sent, with members of the statement changed before it is signed."""
        said = self.statement.model_copy(update=changes)
        return pack_request(sign(said, signer, DEPLOYMENT.receipt_domain), self.frame)

    def opened(self, body: bytes) -> Answer:
        """Read an answer as a requester would."""
        receipt, seed, response = unpack_answer(body)
        assert seed is None
        return Answer(receipt, response, open_scores(response, self.key))


def ask(service: Service, rows: int = 1, *, now: float = NOW, preset: str | None = None) -> Ask:
    """Encrypt the first of the students for a service."""
    card = service.card
    frame, key = encrypt_rows(
        STUDENTS[:rows],
        service.parameters,
        preset or ("latency" if rows == 1 else "batch"),
        model_digest=card.model_digest,
    )
    statement = PredictionRequest(
        service=card.service,
        model_digest=card.model_digest,
        parameters_id=card.parameters_id,
        request_digest=request_digest(frame),
        rows=rows,
        issued_at=int(now),
    )
    return Ask(frame, key, statement)


def plain_scores(service: Service, rows: int) -> np.ndarray:
    """Return what the model says of the first of the students."""
    return STUDENTS[:rows] @ service.weight.T.astype(np.float64) + service.bias
