"""Connections to a service: one on which nothing begins is closed.

uvicorn by itself waits for ever for the headers of a request, so that whoever opens connections
and sends nothing, or a byte now and then, takes all the descriptors of a process.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADERS_S: Final = 15.0


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 by h11, which bounds headers, on connections that are looked at now and then.

    A connection is closed where no request has begun, or none since the last answer, from one
    look to the next: after `headers_s` seconds at least and twice that at most.
    """

    headers_s = HEADERS_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self.loop.call_later(self.headers_s, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        if self.transport.is_closing():
            return
        now = self.cycle
        if now is before and (now is None or now.response_complete):
            # What was answered is still sent.
            self.transport.close()
        else:
            self._look_later()
