"""One worker process of a service: ``python -m twopm_flower.inference.worker``.

What it does is told on standard input as JSON (`Plan`), with paths of secrets and never secrets;
the socket that it listens on is inherited. It ends when it is told to, after what it has begun.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import uvicorn
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load

from twopm_flower.inference.connections import ImpatientProtocol
from twopm_flower.records.inference import ModelCard

if TYPE_CHECKING:
    from twopm_flower.inference.served_model import ServedModel
    from twopm_flower.privacy.linear_parameters import Preset

GRACE_S = 20
"""How long a worker that was told to end finishes what it has begun."""
# As `twopm_flower.inference.metrics` has it, which must not be imported before it is set: what
# counts is chosen when prometheus_client is imported.
_METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class Plan(BaseModel):
    """What a worker is told.

    Attributes
    ----------
    descriptor : int
        The inherited socket.
    parent : int
        The process that started it, with which it ends.
    card : str
        The model card, canonical JSON.
    model, store, service_key : Path
        The model's safetensors, the store of receipts, the key that signs them.
    mask_key : Path or None
        What masks grow from, where weights are secret.
    allowed : tuple of str or None
        The requesters that are answered.
    metrics : Path
        The folder that workers count in.
    tls_certificate, tls_key : Path or None
    in_flight, threads : int
    read_s, answer_s : float
        See `twopm_flower.inference.service.Limits`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    descriptor: int
    parent: int
    card: str
    model: Path
    store: Path
    service_key: Path
    service_key_password: Path | None = None
    mask_key: Path | None
    allowed: tuple[str, ...] | None
    metrics: Path
    tls_certificate: Path | None
    tls_key: Path | None
    in_flight: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    read_s: float
    answer_s: float


def main() -> int:
    """Serve until told to end."""
    plan = Plan.model_validate_json(sys.stdin.readline())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # That it starts and ends is said by the process that starts and ends it.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    os.environ[_METRICS_VARIABLE] = str(plan.metrics)
    app = _app(plan)
    listening = socket.socket(fileno=plan.descriptor)
    asyncio.run(_serve(uvicorn.Server(server_config(app, plan)), listening, plan.parent))
    return 0


def server_config(app: Any, plan: Plan) -> uvicorn.Config:
    """Return how a worker serves an application."""
    return uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=32 * 1024,
        ssl_certfile=plan.tls_certificate,
        ssl_keyfile=plan.tls_key,
    )


def _app(plan: Plan) -> Any:
    from twopm_flower.inference.desk import Desk  # noqa: PLC0415
    from twopm_flower.inference.receipt_store import ReceiptStore  # noqa: PLC0415
    from twopm_flower.inference.served_model import ServedModel  # noqa: PLC0415
    from twopm_flower.inference.service import Limits, create_app  # noqa: PLC0415
    from twopm_flower.privacy import linear_numba  # noqa: PLC0415
    from twopm_flower.privacy.secret_files import read_secret_file  # noqa: PLC0415
    from twopm_flower.signer.keystore import LocalSigner  # noqa: PLC0415

    card = ModelCard.from_bytes(plan.card.encode())
    model = ServedModel.from_card(card, load(plan.model.read_bytes()))
    _warm_up(model)
    desk = Desk(
        model=model,
        signer=LocalSigner.from_file(plan.service_key, password_file=plan.service_key_password),
        store=ReceiptStore(plan.store),
        mask_key=None if plan.mask_key is None else read_secret_file(plan.mask_key),
        allowed=None if plan.allowed is None else frozenset(plan.allowed),
        ring=linear_numba,
    )
    limits = Limits(
        in_flight=plan.in_flight,
        threads=plan.threads,
        read_s=plan.read_s,
        answer_s=plan.answer_s,
    )
    return create_app(desk, limits)


def _warm_up(model: "ServedModel") -> None:
    """Answer a request of our own, so that nobody waits for what is compiled or loaded first."""
    from twopm_flower.privacy import linear_numba  # noqa: PLC0415
    from twopm_flower.privacy.linear_frame import parse_request  # noqa: PLC0415
    from twopm_flower.privacy.linear_request import encrypt_rows  # noqa: PLC0415
    from twopm_flower.privacy.linear_service import answer  # noqa: PLC0415

    parameters, digest = model.prepared.parameters, model.card.model_digest
    nothing = np.zeros((1, parameters.features))
    seed = None if parameters.policy == "public" else bytes(32)
    presets: tuple[Preset, ...] = ("latency", "batch")
    for preset in presets:
        frame, _ = encrypt_rows(nothing, parameters, preset, model_digest=digest)
        request = parse_request(frame, parameters, model_digest=digest, max_rows=1)
        answer(request, model.prepared, seed, linear_numba)


async def _serve(server: uvicorn.Server, listening: socket.socket, parent: int) -> None:
    watch = asyncio.create_task(_end_with(parent, server))
    await server.serve(sockets=[listening])
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def _end_with(parent: int, server: uvicorn.Server) -> None:
    """End when the process that started this one is gone, however it went."""
    while os.getppid() == parent:
        await asyncio.sleep(1.0)
    server.should_exit = True


if __name__ == "__main__":
    raise SystemExit(main())
