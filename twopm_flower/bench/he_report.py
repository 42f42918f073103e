"""The outcome of ``twopm bench he``: records with a stable JSON form."""

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from twopm_flower.bench.machine import Machine

FLOAT32_BYTES = 4


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shares(_Record):
    """What a node sends beside an update so that others can stand in for it.

    Attributes
    ----------
    bytes : int
        All sealed shares of one node together.
    seconds : float
        Sharing the secret and sealing the shares, at the dealer.
    reconstruct_s : float
        Reconstructing a summed key from the openings of all nodes, at each node.
    readers, threshold : int
        To how many nodes, and how many of all nodes open the sum.
    """

    bytes: int
    seconds: float
    reconstruct_s: float
    readers: int
    threshold: int


class Measurement(_Record):
    """One design at one size. Seconds are per repeat, in the order of the repeats.

    Attributes
    ----------
    design : str
    size : int
        Parameters of the model.
    arrays : int
        How many arrays they stand in.
    encrypt_s, add_s, decrypt_s : tuple of float
        Client: encrypt and serialise. Server: read one upload and add it. Client: read the
        sum, decrypt and divide.
    upload_bytes, download_bytes : int
    error : float
        The largest difference of the opened mean to the exact one.
    error_bound : float or None
        The largest error that the design promises; None where it promises none.
    encrypt_peak_bytes : int
        Memory that encrypting one update took above what the process held before.
    round_peak_bytes, decrypt_peak_bytes : int
        The same of a whole round of all nodes, uploads one at a time, and of opening the sum.
    shares : Shares or None
    """

    design: str
    size: int
    arrays: int
    encrypt_s: tuple[float, ...]
    add_s: tuple[float, ...]
    decrypt_s: tuple[float, ...]
    upload_bytes: int
    download_bytes: int
    error: float
    error_bound: float | None
    encrypt_peak_bytes: int
    round_peak_bytes: int
    decrypt_peak_bytes: int
    shares: Shares | None

    @property
    def upload_factor(self) -> float:
        """The upload over the size of the update in float32."""
        return self.upload_bytes / (FLOAT32_BYTES * self.size)

    @property
    def upload_with_shares(self) -> int:
        """Bytes that travel up, shares included."""
        return self.upload_bytes + (self.shares.bytes if self.shares else 0)

    @property
    def medians(self) -> tuple[float, float, float]:
        """The median seconds of encrypting, adding and decrypting."""
        encrypt, add, decrypt = map(statistics.median, (self.encrypt_s, self.add_s, self.decrypt_s))
        return encrypt, add, decrypt


class Ratio(_Record):
    """How many times less one design takes than the peer, of the same size and run.

    Attributes
    ----------
    design, peer : str
    size : int
    upload, upload_with_shares, download, encrypt, add, decrypt : float
        The peer's figure over this design's: above 1 this design needs less.
    """

    design: str
    peer: str
    size: int
    upload: float
    upload_with_shares: float
    download: float
    encrypt: float
    add: float
    decrypt: float


class Skipped(_Record):
    """What was not measured, and why."""

    design: str
    size: int | None
    reason: str
    hint: str | None = None


class HeReport(_Record):
    """A whole run.

    Attributes
    ----------
    machine : Machine
    date : str
        UTC, ISO 8601.
    command : str
        What prints it again.
    nodes, repeats, seed : int
    measurements : tuple of Measurement
    ratios : tuple of Ratio
    skipped : tuple of Skipped
    """

    format: Literal["twopm-flower/bench-he/v1"] = "twopm-flower/bench-he/v1"
    machine: Machine
    date: str
    command: str
    nodes: int
    repeats: int
    seed: int
    measurements: tuple[Measurement, ...]
    ratios: tuple[Ratio, ...]
    skipped: tuple[Skipped, ...]

    def to_json(self) -> str:
        """Return the JSON form."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "HeReport":
        """Read what `to_json` wrote."""
        return cls.model_validate_json(text)


COMPARED = ("nvflare", "tutorial", "plaintext")


def ratios_of(measurements: Sequence[Measurement]) -> tuple[Ratio, ...]:
    """Return every design against the first of `COMPARED` that was measured, size by size."""
    by_place = {(m.design, m.size): m for m in measurements}
    measured = {m.design for m in measurements}
    peer = next((name for name in COMPARED if name in measured), None)
    return tuple(
        _ratio(found, by_place[peer, found.size])
        for found in measurements
        if peer is not None and found.design != peer and (peer, found.size) in by_place
    )


def _ratio(own: Measurement, peer: Measurement) -> Ratio:
    encrypt, add, decrypt = (
        theirs / ours for theirs, ours in zip(peer.medians, own.medians, strict=True)
    )
    return Ratio(
        design=own.design,
        peer=peer.design,
        size=own.size,
        upload=peer.upload_bytes / own.upload_bytes,
        upload_with_shares=peer.upload_with_shares / own.upload_with_shares,
        download=peer.download_bytes / own.download_bytes,
        encrypt=encrypt,
        add=add,
        decrypt=decrypt,
    )
