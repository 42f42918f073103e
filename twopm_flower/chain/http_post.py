"""Posts JSON over HTTP, and takes no more of an answer than there is time and room for."""

import threading
import time
from collections.abc import Mapping

import requests
from urllib3.exceptions import HTTPError

PIECE_BYTES = 1024 * 1024


class HttpPost:
    """One address that several threads may post to.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://`` address; a redirection is an answer, and not followed.
    timeout_s : float
        How long to wait for the connection, for the answer's first byte, and for its last.
    most_bytes : int
        How long an answer may be, unpacked.
    headers : mapping of str to str, optional
        What to send besides the content type, such as an access token.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        most_bytes: int,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._local = threading.local()

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises
        ------
        requests.RequestException, OSError
            Nobody answers, or not in time.
        ValueError
            The answer is too long.
        """
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        deadline = time.monotonic() + self._timeout_s
        text = bytearray()
        try:
            with self._local.session.post(
                self.url,
                data=body,
                headers=self._headers,
                timeout=self._timeout_s,
                stream=True,
                allow_redirects=False,
            ) as response:
                # What has come so far, so that nobody holds us by one byte at a time.
                while piece := response.raw.read1(PIECE_BYTES, decode_content=True):
                    text += piece
                    if len(text) > self._most_bytes:
                        raise ValueError(f"the answer has more than {self._most_bytes} bytes")
                    if time.monotonic() > deadline:
                        raise requests.Timeout(f"took more than {self._timeout_s:g} s to answer")
                return int(response.status_code), bytes(text)
        except HTTPError as error:
            raise requests.ConnectionError(str(error)) from error
