"""Settings of whoever asks a signer: where it is, and how both sides know each other."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class SignerSettings(BaseModel):
    """An isolated signer.

    ``url`` is ``unix:///path/signer.sock`` or ``https://host:port``; the latter needs
    ``tls_cert`` and ``tls_key``, which this side shows, and ``tls_ca``, which the signer's
    certificate is signed by. ``account`` is the address, or base-58 key, that it has to sign
    for. Paths are relative to the home.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^(unix:///.+|https://[^/]+:\d+/?)$")]
    account: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
