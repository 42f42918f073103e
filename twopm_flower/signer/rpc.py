"""JSON-RPC between a signer and those who ask it: bytes in, a status and bytes out."""

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import pydantic_core

from twopm_flower.errors import SignerError, SignerRefused, SignerRequestError
from twopm_flower.signer.service import SigningService

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 1024 * 1024
PARSE_ERROR, NO_REQUEST, BROKEN = -32700, -32600, -32603
# "Transaction rejected" of EIP-1474
REFUSED: Final = -32003
NOTHING_SIGNED: Final = "the signer failed, and signed nothing"


@dataclass(frozen=True)
class Answer:
    """An HTTP status and a JSON body."""

    status: HTTPStatus
    body: bytes


def answer(service: SigningService, body: bytes, *, client: str) -> Answer:
    """Answer one JSON-RPC request; whatever it is, nothing is raised and no secret told."""
    number, error = None, dict[str, Any]()
    try:
        request = _read(body)
        number = request["id"]
        result = service.call(request["method"], request.get("params", []), client=client)
    except SignerRefused as refusal:
        status = HTTPStatus.PRECONDITION_FAILED
        error = {"code": REFUSED, "message": refusal.message}
        if refusal.signed is not None:
            error["data"] = {"signed": refusal.signed}
    except SignerRequestError as wrong:
        status, error = HTTPStatus.BAD_REQUEST, {"code": wrong.code, "message": wrong.message}
    except Exception as failure:  # noqa: BLE001  # its text might hold what only the signer knows
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        error = {"code": BROKEN, "message": NOTHING_SIGNED}
        told = failure.message if isinstance(failure, SignerError) else type(failure).__name__
        log.critical("%s: %s", NOTHING_SIGNED, told)
    else:
        return _said(HTTPStatus.OK, {"jsonrpc": "2.0", "id": number, "result": result})
    return _said(status, {"jsonrpc": "2.0", "id": number, "error": error})


def _read(body: bytes) -> dict[str, Any]:
    try:
        request = pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise SignerRequestError("the request is not JSON", code=PARSE_ERROR) from None
    if isinstance(request, list):
        raise SignerRequestError("several requests at once are not answered", code=NO_REQUEST)
    if not isinstance(request, dict) or not _is_request(request):
        raise SignerRequestError(
            "not a JSON-RPC 2.0 request: jsonrpc, id, method and params", code=NO_REQUEST
        )
    return request


def _is_request(request: dict[str, Any]) -> bool:
    return (
        request.keys() <= {"jsonrpc", "id", "method", "params"}
        and request.get("jsonrpc") == "2.0"
        and isinstance(request.get("method"), str)
        and isinstance(request.get("params", []), (list, dict))
        and isinstance(request.get("id"), (int, str))
        and len(str(request["id"])) <= 80
    )


def _said(status: HTTPStatus, value: Any) -> Answer:
    return Answer(status, json.dumps(value).encode())
