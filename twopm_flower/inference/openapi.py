"""What the OpenAPI document says of answers: bytes, JSON, and problems in words (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from twopm_flower.inference.envelope import OCTETS, PROBLEM


def described(kind: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of an answer of one media type."""
    schema = {"type": "string", "format": "binary"} if kind == OCTETS else {}
    return {200: {"description": "Found", "content": {kind: {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of what can go wrong, by HTTP status."""
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "hint": {"type": "string"},
        },
    }
    content: Mapping[str, Any] = {PROBLEM: {"schema": schema}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }
