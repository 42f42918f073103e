"""The client of a private inference service, for asyncio: inputs never leave it unencrypted."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.errors import ConfigError, InferenceMismatch
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client_flow import ClientFlow
from twopm_flower.inference.http_steps import Answer, Flow, NoAnswer, Outcome, Pause, Send
from twopm_flower.records.inference import ModelCard, ReceiptFile
from twopm_flower.records.statements import TypedDataSigner

USER_AGENT: Final = "twopm-flower"
TRUST: Final = (
    "Get the service's certificate from its operator by another way, and pass it as --ca."
)

T = TypeVar("T")

# Reading the system's certificates takes a while, and http:// needs none.
_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class AsyncPrivateInferenceClient:
    """Asks a service for predictions on inputs that the service cannot read.

    Each request is encrypted under a fresh key that stays in this process; what comes back is
    checked, opened here, and kept with its signed receipt.

    Parameters
    ----------
    url : str
        ``https://host:port``; ``http://`` for this machine only.
    home : Path, optional
        Where the key that signs requests, and receipts, are kept; ``$TWOPM_HOME`` by default.
    signer : TypedDataSigner, optional
        Signs requests; the home's own key, made on first use, if not given.
    policy : ClientPolicy, optional
        What is agreed to (price, account of the service, chain) and how patient to be.
    ca_file : Path, optional
        The certificates to believe, rather than those of the operating system.
    insecure : bool
        Allow ``http://`` to another machine. Inputs are encrypted nonetheless; who asks, how
        many rows, and which model is served are then told by whoever is in between.
    transport : httpx.AsyncBaseTransport, optional
        Another way to reach the service, such as an application in this process.

    Raises
    ------
    ConfigError
        The address is none, or may not be used; the key or the certificates cannot be read.

    Examples
    --------
    >>> async def ask(students):  # doctest: +SKIP
    ...     async with AsyncPrivateInferenceClient("https://inference.example:8443") as client:
    ...         return await client.predict(students)
    """

    def __init__(
        self,
        url: str,
        *,
        home: Path | None = None,
        signer: TypedDataSigner | None = None,
        policy: ClientPolicy | None = None,
        ca_file: Path | None = None,
        insecure: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = service_url(url, insecure=insecure)
        self.policy = policy or ClientPolicy()
        self._flow = ClientFlow.of(home, self.policy, signer)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            verify=_trusted(ca_file) if self.url.startswith("https:") else _NOBODY,
            # For each byte; what an exchange may take in all is limited below.
            timeout=self.policy.timeout_s,
            follow_redirects=False,
            transport=transport,
        )

    @property
    def address(self) -> str:
        """The EIP-55 address that requests are signed by."""
        return self._flow.address

    async def card(self, *, refresh: bool = False) -> ModelCard:
        """Return what the service says about its model, checked; asked for once.

        Parameters
        ----------
        refresh : bool
            Ask again.

        Raises
        ------
        InferenceError
            The service does not answer, or its card is none to be agreed with.
        """
        return await self._run(lambda: self._flow.card(refresh=refresh))

    async def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Predict for students.

        Parameters
        ----------
        frame : pandas.DataFrame
            Columns of the published schema; those that the model does not look at may be missing.

        Returns
        -------
        pandas.DataFrame
            The index of `frame`; ``probability`` of the second class, or
            ``probability_<class>`` of each where there are more than two; ``class``, the most
            probable one; ``receipt``, the digest of the receipt. A model without classes has
            ``score`` instead.

        Raises
        ------
        DataError
            A missing column, or a value outside the schema; nothing was sent.
        InferenceError
            The service does not answer, or not honestly.
        """
        return await self._run(lambda: self._flow.predict(frame))

    async def predict_features(self, features: NDArray[np.floating[Any]]) -> pd.DataFrame:
        """Predict for rows that are encoded already.

        Parameters
        ----------
        features : numpy.ndarray
            Shape (rows, features), in the order of the card's features.

        Returns
        -------
        pandas.DataFrame
            As `predict` returns it, numbered from 0.
        """
        return await self._run(lambda: self._flow.predict_features(features))

    async def receipts(self, *, fetch: bool = True) -> tuple[ReceiptFile, ...]:
        """Return the receipts that are kept for this service, oldest first.

        Parameters
        ----------
        fetch : bool
            Ask whether those that were not anchored have been in the meantime.
        """
        return await self._run(lambda: self._flow.receipts(fetch=fetch))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, start: Callable[[], Flow[T]]) -> T:
        flow = start()
        outcome: Outcome = None
        while True:
            # Encrypting and checking take milliseconds, or seconds for many rows.
            step = await asyncio.to_thread(_advance, flow, outcome)
            if isinstance(step, _Done):
                return step.value
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._exchange(step)

    async def _exchange(self, request: Send) -> Answer | NoAnswer:
        headers = {} if request.content_type is None else {"Content-Type": request.content_type}
        try:
            async with (
                asyncio.timeout(self.policy.timeout_s),
                self._http.stream(
                    request.method, request.path, content=request.body or None, headers=headers
                ) as response,
            ):
                body = bytearray()
                # Raw, for a packed answer could be of any length once it is unpacked.
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > request.most_bytes:
                        raise InferenceMismatch(
                            f"the service answers {request.path} with more than "
                            f"{request.most_bytes} bytes"
                        )
                return Answer(
                    response.status_code,
                    bytes(body),
                    {name.lower(): value for name, value in response.headers.items()},
                )
        except TimeoutError:
            return NoAnswer(f"it took more than {self.policy.timeout_s:g} s")
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            # All that httpx keeps of a certificate that is not trusted is what it says.
            return NoAnswer(reason, TRUST if "CERTIFICATE_VERIFY_FAILED" in reason else None)


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T


def _advance(flow: Flow[T], outcome: Outcome) -> Send | Pause | _Done[T]:
    # A thread's future cannot carry StopIteration, by which a generator returns.
    try:
        return flow.send(outcome)
    except StopIteration as stop:
        return _Done(stop.value)


def service_url(url: str, *, insecure: bool) -> str:
    """Return the address of a service, if it may be used.

    Raises
    ------
    ConfigError
        Not an HTTP address, with a password in it, or not encrypted and not on this machine.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"{url!r} is no address: {error}") from error
    port = parsed.port or 1
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < port < 65_536:
        raise ConfigError(
            f"{url!r} is no address of a service", hint="Give one like https://host:8443."
        )
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError("the address of a service has no user, no query and no fragment")
    if parsed.scheme == "http" and not insecure and not _on_this_machine(parsed.host):
        raise ConfigError(
            f"{url} is not encrypted, and not on this machine",
            hint="Use https://. Inputs are encrypted in any case; --insecure accepts that others "
            "see who asks, and could pose as the service.",
        )
    return str(parsed).rstrip("/")


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{ca_file} holds no certificates to trust: {error.strerror or error}",
            hint="Give a PEM file with the certificate that the service's own is signed by.",
        ) from error
