"""A service under load: real workers, signatures and durable receipts, requests at a fixed rate."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from safetensors.numpy import save

from twopm_flower.bench.inference import FEATURES, RANGE, MadeUpModel
from twopm_flower.bench.inference_report import LoadFigures
from twopm_flower.bench.progress import Progress
from twopm_flower.errors import BenchmarkError, PrivacyError, RecordError
from twopm_flower.inference.envelope import OCTETS, pack_request, unpack_answer
from twopm_flower.inference.service import Limits
from twopm_flower.inference.serving import START_S, Serving, listen
from twopm_flower.inference.worker import Plan
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.linear_frame import request_digest
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.privacy.linear_request import RequestKey, encrypt_rows, open_scores
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.inference import ModelCard, PredictionRequest
from twopm_flower.records.statements import sign
from twopm_flower.records.terms import model_digest
from twopm_flower.signer.keystore import LocalSigner, create_key_file

_ANSWER_LIMIT_S: Final = 30.0
_WARM_UP: Final = 50


@dataclass(frozen=True)
class LoadOptions:
    """How hard the service is pressed.

    Attributes
    ----------
    rate : float
        Requests a second, sent when they are due whatever became of earlier ones.
    seconds : float
    workers : int
    """

    rate: float
    seconds: float
    workers: int


@dataclass(frozen=True)
class _Asked:
    body: bytes
    key: RequestKey
    score: float


def measure_load(folder: Path, options: LoadOptions, progress: Progress) -> LoadFigures:
    """Start a service of a made-up model, and ask it for predictions of one row each.

    Parameters
    ----------
    folder : Path
        An empty folder.
    options : LoadOptions
    progress : Progress

    Raises
    ------
    BenchmarkError
        The service does not start.
    """
    count = max(1, int(options.rate * options.seconds))
    model = MadeUpModel.of(count + _WARM_UP)
    requester = LocalSigner(os.urandom(32))
    with _service(folder, model, options.workers) as (url, card):
        progress.doing(f"encrypting and signing {count} requests", 3, 4)
        asked = _requests(model, card, requester)
        progress.doing(f"{options.rate:g} requests a second for {options.seconds:g} s", 3, 4)
        asyncio.run(_send(url, asked[:_WARM_UP], options.rate))
        answers = asyncio.run(_send(url, asked[_WARM_UP:], options.rate))
    right = [
        answer is not None and _is_right(question, answer[0])
        for question, answer in zip(asked[_WARM_UP:], answers, strict=True)
    ]
    return LoadFigures(
        rate=options.rate,
        seconds=options.seconds,
        workers=options.workers,
        latencies_s=tuple(sorted(answer[1] for answer in answers if answer is not None)),
        lost=right.count(False),
    )


@contextmanager
def _service(folder: Path, model: MadeUpModel, workers: int) -> Iterator[tuple[str, ModelCard]]:
    key = folder / "service.key"
    signer = create_key_file(key)
    arrays = {"weight": model.weight, "bias": model.bias}
    layout = Layout(tuple((name, array.shape) for name, array in arrays.items()))
    weights = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    ranges = np.full(FEATURES, RANGE)
    parameters = LinearParameters.derive(model.weight, model.bias, ranges, "public")
    file = folder / "model.safetensors"
    file.write_bytes(save(arrays))
    card = ModelCard(
        deployment=_deployment(),
        task_id="0x" + "02" * 32,
        model_digest=model_digest(layout.digest, weights),
        layout=layout.to_dict(),
        model_family="logistic-regression",
        link="sigmoid",
        weights="public",
        features=tuple(f"feature {number}" for number in range(FEATURES)),
        encoding={},
        ranges=tuple(ranges.tolist()),
        parameters=parameters.to_dict(),
        parameters_id=parameters.identifier,
        classes=("no", "yes"),
        service=signer.address,
        issuer=signer.address,
        price=0,
        query_budget=None,
        max_rows=1,
    )
    listening = listen("127.0.0.1", 0)
    plan = Plan(
        card=card.to_bytes().decode(),
        model=file,
        store=folder / "receipts.sqlite",
        service_key=key,
        mask_key=None,
        allowed=None,
        tls_certificate=None,
        tls_key=None,
        limits=Limits(answer_s=_ANSWER_LIMIT_S),
    )
    with Serving(listening, plan, workers) as serving:
        keeper = threading.Thread(target=serving.run, daemon=True)
        keeper.start()
        host, port = serving.address
        try:
            _wait_until_ready(f"http://{host}:{port}")
            yield f"http://{host}:{port}", card
        finally:
            serving.stop()
            keeper.join()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=START_S).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise BenchmarkError(f"the service at {url} did not start in {START_S:g} s")


def _requests(model: MadeUpModel, card: ModelCard, requester: LocalSigner) -> list[_Asked]:
    parameters = LinearParameters.from_dict(card.parameters)
    scores = model.scores(model.rows)[:, 0]
    asked = []
    for row, score in zip(model.rows, scores.tolist(), strict=True):
        frame, key = encrypt_rows(row[None], parameters, "latency", model_digest=card.model_digest)
        statement = PredictionRequest(
            service=card.service,
            model_digest=card.model_digest,
            parameters_id=card.parameters_id,
            request_digest=request_digest(frame),
            rows=1,
            issued_at=int(time.time()),
        )
        signed = sign(statement, requester, card.deployment.receipt_domain)
        asked.append(_Asked(pack_request(signed, frame), key, score))
    return asked


async def _send(url: str, asked: Sequence[_Asked], rate: float) -> list[tuple[bytes, float] | None]:
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(
        base_url=url, timeout=_ANSWER_LIMIT_S, limits=limits, trust_env=False
    ) as client:
        start = asyncio.get_running_loop().time() + 0.1

        async def one(number: int, body: bytes) -> tuple[bytes, float] | None:
            loop = asyncio.get_running_loop()
            due = start + number / rate
            await asyncio.sleep(due - loop.time())
            try:
                answer = await client.post(
                    "/v1/predictions", content=body, headers={"Content-Type": OCTETS}
                )
            except httpx.TransportError:
                return None
            return (answer.content, loop.time() - due) if answer.status_code == 200 else None

        return list(
            await asyncio.gather(*(one(number, each.body) for number, each in enumerate(asked)))
        )


def _is_right(asked: _Asked, answer: bytes) -> bool:
    try:
        _, _, frame = unpack_answer(answer)
        opened = float(open_scores(frame, asked.key)[0, 0])
    except (PrivacyError, RecordError):
        return False
    # The sigmoid's slope is at most 1/4.
    return abs(opened - asked.score) / 4 <= 1e-3


def _deployment() -> Deployment:
    registries = [f"0x{number:040x}" for number in range(1, 5)]
    return Deployment(
        chain_id=2_718_281_828,
        genesis_hash="0x" + "03" * 32,
        node_registry=registries[0],
        task_registry=registries[1],
        data_registry=registries[2],
        receipt_registry=registries[3],
    )
