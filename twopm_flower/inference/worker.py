"""One worker process of a service: ``python -m twopm_flower.inference.worker SOCKET PARENT``.

It is given the descriptor of the socket to listen on, which it inherits, and the process that
started it, with which it ends. What it does is told on standard input as JSON (`Plan`), with
paths of secrets and never secrets. It ends when it is told to, after what it has begun.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load

from twopm_flower.inference.connections import ImpatientProtocol
from twopm_flower.inference.desk import Desk
from twopm_flower.inference.linear import LinearClient, LinearService
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.inference.served_model import ServedModel
from twopm_flower.inference.service import Limits, create_app
from twopm_flower.privacy.linear_parameters import Preset
from twopm_flower.privacy.secret_files import read_secret_file
from twopm_flower.records.inference import ModelCard
from twopm_flower.signer.keystore import LocalSigner

GRACE_S = 20
"""How long a worker that was told to end finishes what it has begun."""


class Plan(BaseModel):
    """What a worker is told, the same to all.

    Attributes
    ----------
    card : str
        The model card, canonical JSON.
    model, store, service_key : Path
        The model's safetensors, the store of receipts, the key that signs them.
    mask_key : Path or None
        What masks grow from, where weights are secret.
    allowed : tuple of str or None
        The requesters that are answered.
    tls_certificate, tls_key : Path or None
    limits : Limits
        How much one worker takes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    card: str
    model: Path
    store: Path
    service_key: Path
    mask_key: Path | None
    allowed: tuple[str, ...] | None
    tls_certificate: Path | None
    tls_key: Path | None
    limits: Limits


def main() -> int:
    """Serve until told to end."""
    descriptor, parent = map(int, sys.argv[1:])
    plan = Plan.model_validate_json(sys.stdin.readline())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # That it starts and ends is said by the process that starts and ends it.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    app = _app(plan)
    listening = socket.socket(fileno=descriptor)
    asyncio.run(_serve(uvicorn.Server(server_config(app, plan)), listening, parent))
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
    # The compiler takes 0.6 s, which the process that starts workers need not wait for.
    from twopm_flower.privacy import linear_numba  # noqa: PLC0415

    card = ModelCard.from_bytes(plan.card.encode())
    model = ServedModel.from_card(card, load(plan.model.read_bytes()))
    mask_key = None if plan.mask_key is None else read_secret_file(plan.mask_key)
    _warm_up(
        LinearService(
            model.prepared, card.model_digest, mask_key=mask_key, max_rows=1, ring=linear_numba
        )
    )
    desk = Desk(
        model=model,
        signer=LocalSigner.from_file(plan.service_key),
        store=ReceiptStore(plan.store),
        mask_key=mask_key,
        allowed=None if plan.allowed is None else frozenset(plan.allowed),
        ring=linear_numba,
    )
    return create_app(desk, plan.limits)


def _warm_up(service: LinearService) -> None:
    """Answer requests of our own, so that nobody waits for what is compiled or loaded first."""
    parameters = service.model.parameters
    nothing = np.zeros((1, parameters.features))
    presets: tuple[Preset, ...] = ("latency", "batch")
    for preset in presets:
        request, _ = LinearClient(parameters, service.model_digest, preset).encrypt(nothing)
        service.answer(request)


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
