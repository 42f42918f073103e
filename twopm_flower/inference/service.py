"""The service over HTTP: versioned paths, bounded work, problems in words, an OpenAPI document.

Requests and answers are bytes (`twopm_flower.inference.envelope`); what is wrong with one is said
as RFC 9457 asks for. What computes runs in threads beside the event loop, and no more of it at
once than can be answered in time: whoever comes then is told when to come again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field
from safetensors.numpy import save
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from twopm_flower import __version__
from twopm_flower.errors import InferenceRefused, TwopmError
from twopm_flower.inference.desk import Answered, BudgetUsed, Desk
from twopm_flower.inference.envelope import MOST_STATEMENT_BYTES, OCTETS, PROBLEM
from twopm_flower.inference.metrics import Metrics
from twopm_flower.inference.openapi import described, problems
from twopm_flower.privacy.frame import RESIDUE_BYTES
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.inference import Anchoring

BUSY_S: Final = 1
"""What ``Retry-After`` says to whoever comes when too much is being answered."""
_MOST_FRAME_HEADER_BYTES: Final = 16 * 1024
_DIGEST: Final = "^0x[0-9a-f]{64}$"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much one worker takes on.

    Attributes
    ----------
    in_flight : int
        Requests that are answered at once; more are told to come again.
    reading : int
        Requests whose bodies are waited for at once. Whoever sends one slowly takes none of
        the places of those that are answered.
    held_bytes : int
        Bytes of bodies that are kept at once, however many requests they are of; two of the
        longest are kept in any case.
    threads : int
        Threads that compute.
    read_s : float
        Seconds in which the body of a request has to come.
    answer_s : float
        Seconds after which a request is told to come again.
    """

    in_flight: Annotated[int, Field(ge=1)] = 64
    reading: int = 1024
    held_bytes: int = 256 * 1024 * 1024
    threads: Annotated[int, Field(ge=1)] = 2
    read_s: float = 15.0
    answer_s: float = 30.0


class Problem(Exception):  # noqa: N818  # RFC 9457's word
    """An answer that says what is wrong.

    Parameters
    ----------
    status : int
    detail : str
    hint : str, optional
    retry_after_s : int, optional
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        hint: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.retry_after_s = retry_after_s

    def response(self) -> Response:
        """Return what is sent."""
        said: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.hint is not None:
            said["hint"] = self.hint
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return JSONResponse(said, self.status, headers, PROBLEM)


class Counter:
    """Answers requests with a desk, in threads, and only so many at once."""

    def __init__(self, desk: Desk, limits: Limits, metrics: Metrics) -> None:
        self._desk = desk
        self._limits = limits
        self._metrics = metrics
        self._in_flight = 0
        self._reading = 0
        self._held_bytes = 0
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="predict")
        self._most_bytes = most_request_bytes(
            desk.model.prepared.parameters, desk.model.card.max_rows
        )
        self._most_held_bytes = max(limits.held_bytes, 2 * self._most_bytes)
        self.stopping = False

    def close(self) -> None:
        """Wait for what is being computed."""
        self._threads.shutdown(wait=True)

    async def predictions(self, request: Request) -> bytes:
        """Return the body of an answer.

        Raises
        ------
        Problem
            There is none.
        """
        if self.stopping:
            raise Problem(503, "the service is stopping", retry_after_s=BUSY_S)
        # Before the body is read, so that nobody sends much in vain.
        self._check_place()
        parts: list[bytes] = []
        try:
            await self._read(request, parts)
            with self._place(), self._metrics.seconds.time():
                return await self._answer(b"".join(parts))
        finally:
            self._held_bytes -= sum(map(len, parts))

    async def anchoring(self, receipt: str) -> Anchoring | None:
        """Return where a receipt is anchored, or None as long as it is not.

        Raises
        ------
        Problem
            There is no such receipt, or too much is being answered.
        """
        with self._place():
            try:
                found: Anchoring | None = await self._in_thread(self._desk.anchoring, receipt)
            except InferenceRefused as error:
                raise Problem(error.status, error.message) from error
            return found

    def _check_place(self) -> None:
        if self._in_flight >= self._limits.in_flight:
            raise Problem(429, "too many requests are being answered", retry_after_s=BUSY_S)

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._check_place()
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _read(self, request: Request, parts: list[bytes]) -> None:
        if self._reading >= self._limits.reading:
            raise Problem(429, "too many requests are being read", retry_after_s=BUSY_S)
        self._reading += 1
        try:
            await self._body(request, parts)
        finally:
            self._reading -= 1

    async def _body(self, request: Request, parts: list[bytes]) -> None:
        kind = request.headers.get("content-type", OCTETS).split(";")[0].strip().lower()
        if kind != OCTETS:
            raise Problem(415, f"a request for predictions is {OCTETS}, not {kind[:80]}")
        stated = request.headers.get("content-length", "0")
        if not stated.isascii() or not stated.isdigit() or int(stated[:19]) > self._most_bytes:
            raise self._too_long()
        length = 0
        try:
            async with asyncio.timeout(self._limits.read_s):
                async for part in request.stream():
                    length += len(part)
                    if length > self._most_bytes:
                        raise self._too_long()
                    if self._held_bytes + len(part) > self._most_held_bytes:
                        raise Problem(429, "too much is being read", retry_after_s=BUSY_S)
                    self._held_bytes += len(part)
                    parts.append(part)
        except TimeoutError:
            raise Problem(408, f"the request did not come in {self._limits.read_s:g} s") from None
        except ClientDisconnect:
            # Nobody reads this; as an error of ours it would fill the log with tracebacks.
            raise Problem(400, "the request was cut off") from None

    async def _answer(self, body: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                answered: Answered = await self._in_thread(self._desk.answer, body)
        except TimeoutError:
            raise Problem(
                503, "the answer takes too long; ask again for it", retry_after_s=BUSY_S
            ) from None
        except BudgetUsed as error:
            raise Problem(
                429, error.message, hint=error.hint, retry_after_s=error.retry_after_s
            ) from error
        except InferenceRefused as error:
            raise Problem(error.status, error.message, hint=error.hint) from error
        self._metrics.rows.inc(answered.rows)
        return answered.body

    def _too_long(self) -> Problem:
        return Problem(
            413,
            f"a request has at most {self._most_bytes} bytes here",
            hint=f"Ask for at most {self._desk.model.card.max_rows} rows at a time.",
        )


def create_app(desk: Desk, limits: Limits | None = None, metrics: Metrics | None = None) -> FastAPI:
    """Return the application of one worker.

    Parameters
    ----------
    desk : Desk
    limits : Limits, optional
    metrics : Metrics, optional
    """
    metrics = metrics or Metrics()
    counter = Counter(desk, limits or Limits(), metrics)
    card = desk.model.card.to_bytes()
    weights = save(dict(desk.model.arrays))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        counter.stopping = True
        counter.close()

    app = FastAPI(
        title="Private predictions",
        version=__version__,
        description="Predictions on inputs that the service cannot read, with signed receipts. "
        "docs/inference.md and docs/protocol.md describe the bytes.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.counter = counter
    _handle_errors(app)

    @app.middleware("http")
    async def count(
        request: Request, forward: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await forward(request)
        if request.url.path == "/v1/predictions":
            metrics.requests.labels(str(response.status_code)).inc()
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/v1/model", summary="The model card", responses=described("application/json"))
    async def model() -> Response:
        return Response(card, media_type="application/json")

    @app.get(
        "/v1/model/weights",
        summary="The weights, where they are public",
        responses={**described(OCTETS), **problems(403)},
    )
    async def model_weights() -> Response:
        if desk.model.card.weights == "secret":
            raise Problem(403, "the weights of this model are secret")
        return Response(weights, media_type=OCTETS)

    @app.post(
        "/v1/predictions",
        summary="Predict for encrypted rows",
        responses={
            **described(OCTETS),
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 429, 503),
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def predictions(request: Request) -> Response:
        return Response(await counter.predictions(request), media_type=OCTETS)

    @app.get(
        "/v1/receipts/{digest}",
        summary="Where a receipt is anchored",
        responses={**described("application/json"), **problems(404, 429)},
        openapi_extra={
            "parameters": [
                {
                    "name": "digest",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string", "pattern": _DIGEST},
                }
            ]
        },
    )
    async def receipt(request: Request) -> Response:
        digest = request.path_params["digest"]
        if len(digest) != 66:
            raise Problem(404, "a receipt is named by 0x and 64 hexadecimal digits")
        anchoring = await counter.anchoring(digest)
        said = {
            "state": "pending" if anchoring is None else "anchored",
            "anchoring": None if anchoring is None else anchoring.to_json(),
        }
        return Response(canonical_bytes(said), media_type="application/json")

    @app.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether it answers requests", responses=problems(503))
    async def readyz() -> dict[str, str]:
        if counter.stopping:
            raise Problem(503, "the service is stopping", retry_after_s=BUSY_S)
        return {"status": "ready"}

    @app.get("/metrics", summary="Figures for Prometheus", responses=described("text/plain"))
    async def figures() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return app


def most_request_bytes(parameters: LinearParameters, max_rows: int) -> int:
    """Return how long the body of a request can be."""
    residues = max(
        parameters.request_residues("latency", 1), parameters.request_residues("batch", max_rows)
    )
    return MOST_STATEMENT_BYTES + _MOST_FRAME_HEADER_BYTES + RESIDUE_BYTES * residues


def _handle_errors(app: FastAPI) -> None:
    async def problem(_request: Request, error: Exception) -> Response:
        if isinstance(error, Problem):
            return error.response()
        if isinstance(error, HTTPException):
            told = Problem(error.status_code, HTTPStatus(error.status_code).phrase).response()
            told.headers.update(error.headers or {})
            return told
        if isinstance(error, RequestValidationError):
            return Problem(400, "the request is malformed").response()
        # What went wrong is for the operator's log; a stranger learns nothing of it.
        kind = "an error of ours" if isinstance(error, TwopmError) else "an unexpected error"
        log.error("%s while answering", kind, exc_info=error)
        return Problem(500, "the service failed; its operator's log says how").response()

    for kind in (Problem, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, problem)
