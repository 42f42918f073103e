"""The audit log of a signer: JSON lines, each with the digest of the one before.

Every line is canonical JSON, so a changed byte breaks the chain. That lines are missing at the
end only a count kept elsewhere can tell; the signer keeps one in its state.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from twopm_flower.errors import ConfigError, RecordError, SignerError
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import ZERO_DIGEST, tagged_digest
from twopm_flower.records.fields import Digest, Record, Uint53

TAG: Final = "signer-audit/v1"
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
Decision = Literal["signed", "refused", "started"]


class Entry(Record):
    """One line.

    Attributes
    ----------
    number : int
        From 1.
    previous : str
        Digest of the line before; zero for the first.
    at : str
        Time, UTC, ISO 8601.
    decision : {"signed", "refused", "started"}
    method : str
        As it was asked for.
    client : str
        Who asked: a peer's user and process, a certificate's name, or ``offline``.
    words : str
        What it does, or why it was refused.
    digest : str
        What was signed, in hexadecimal; empty if nothing was.
    fields : dict
        The transaction or the typed data, as asked for and allowed; empty where the same
        transaction was signed before.
    """

    number: Uint53
    previous: Digest
    at: str
    decision: Decision
    method: str
    client: str
    words: str
    digest: str = ""
    fields: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Head:
    """How long a log is, and the digest of its last line."""

    count: int = 0
    digest: str = ZERO_DIGEST


@dataclass(frozen=True)
class Summary:
    """What a log holds, once checked."""

    head: Head
    signed: int
    refused: int
    first_at: str
    last_at: str


class AuditLog:
    """Appends to a log that it checked when it was opened.

    Parameters
    ----------
    path : Path
        Created with mode 0600.
    head : Head
        What the log reached at least, as far as the signer's state knows.

    Raises
    ------
    SignerError
        The log is broken or lacks entries.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.path = path
        descriptor = _open(path)
        os.close(descriptor)
        torn = _length_without_torn_line(path)
        self.head = check_audit(path, head, length=torn).head
        if torn is not None:
            os.truncate(path, torn)
        self._length = path.stat().st_size

    def append(  # noqa: PLR0917  # one parameter for each part of an entry
        self,
        at: str,
        decision: Decision,
        method: str,
        client: str,
        words: str,
        digest: str = "",
        fields: dict[str, Any] | None = None,
    ) -> Head:
        """Write an entry, and return when it is on disk.

        Raises
        ------
        SignerError
            The disk is full or broken, and what was written of the entry is taken back; or
            somebody cut, removed or added to the log meanwhile.
        """
        entry = Entry(
            number=self.head.count + 1,
            previous=self.head.digest,
            at=at,
            decision=decision,
            method=method,
            client=client,
            words=words,
            digest=digest,
            fields=fields or {},
        )
        line = canonical_bytes(entry.model_dump(mode="json"))
        try:
            self._write_whole(line + b"\n")
        except OSError as error:
            raise SignerError(
                f"the audit log {self.path} cannot be written: {error.strerror}",
                hint="Nothing is signed that is not written down. Make room on its disk.",
            ) from error
        self.head = Head(entry.number, tagged_digest(TAG, line))
        return self.head

    def _write_whole(self, data: bytes) -> None:
        descriptor = _open(self.path)
        try:
            length = os.fstat(descriptor).st_size
            if length != self._length:
                raise _broken(
                    self.path,
                    self.head.count + 1,
                    f"would start at byte {self._length}, and the log has {length} bytes",
                )
            try:
                written = 0
                while written < len(data):
                    # A disk that fills up takes the first part, and says so by a number only.
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, length)
                raise
            self._length = length + written
        finally:
            os.close(descriptor)


def read_audit(path: Path, *, length: int | None = None) -> Iterator[tuple[Entry, str]]:
    """Yield the entries of a log with their digests, each checked against the one before.

    Parameters
    ----------
    path : Path
    length : int, optional
        Look at so many bytes only.

    Raises
    ------
    SignerError
        The first entry that does not hold is named.
    """
    head = Head()
    try:
        with path.open("rb") as file:
            while (length is None or file.tell() < length) and (
                line := file.readline(MAX_LINE_BYTES)
            ):
                entry = _checked(path, line, head)
                head = Head(entry.number, tagged_digest(TAG, line[:-1]))
                yield entry, head.digest
    except OSError as error:
        raise ConfigError(f"the audit log {path} cannot be read: {error.strerror}") from error


def check_audit(path: Path, expected: Head | None = None, *, length: int | None = None) -> Summary:
    """Check a whole log.

    Parameters
    ----------
    path : Path
    expected : Head, optional
        What it reached at least: entries after it are fine, fewer are not.
    length : int, optional
        Look at so many bytes only.

    Raises
    ------
    SignerError
        The first broken entry is named; or entries are missing at the end.
    """
    head, signed, refused, times = Head(), 0, 0, ["", ""]
    expected = expected or Head()
    for entry, digest in read_audit(path, length=length):
        head = Head(entry.number, digest)
        signed += entry.decision == "signed"
        refused += entry.decision == "refused"
        times = [times[0] or entry.at, entry.at]
        if entry.number == expected.count and digest != expected.digest:
            raise _broken(path, entry.number, "is another one than the signer wrote")
    if head.count < expected.count:
        raise _broken(
            path, head.count + 1, f"and all up to {expected.count} are missing: the log was cut"
        )
    return Summary(head, signed, refused, times[0], times[1])


def _checked(path: Path, line: bytes, head: Head) -> Entry:
    number = head.count + 1
    if not line.endswith(b"\n"):
        raise _broken(path, number, "is cut off")
    try:
        entry = Entry.from_bytes(line[:-1])
    except RecordError as error:
        raise _broken(path, number, f"cannot be read: {error.message}") from error
    if entry.number != number:
        raise _broken(path, number, f"calls itself number {entry.number}")
    if entry.previous != head.digest:
        raise _broken(path, number, f"follows {entry.previous}, and the one before is another")
    return entry


def _broken(path: Path, number: int, what: str) -> SignerError:
    return SignerError(
        f"entry {number} of {path} {what}",
        hint="Somebody changed the log, or its disk failed. Keep it, and compare what the account "
        "did on chain. Once none of its transactions waits any more, start with a new --audit "
        "and --state.",
    )


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _length_without_torn_line(path: Path) -> int | None:
    # A crash in the middle of a write leaves a line without an end. Nothing was signed for it:
    # signatures leave only when their line is on disk.
    data = path.read_bytes()
    return None if not data or data.endswith(b"\n") else data.rfind(b"\n") + 1
