"""The guard: which sums of updates a node has let be opened, remembered through any crash.

Two sums over almost the same nodes give one node's update away by subtraction, and a key that
opens too much gives itself away in the end. So a node asks its guard before it decrypts a sum
or opens a share of its key, and the guard writes down its answer before it gives it.

**Rotating a key.** Every task has a key of its own, dealt at its start. A new key is a new
task, started from the old one's model: ``twopm model export --out model.safetensors``, then
``twopm task create --initial-model model.safetensors``.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twopm_flower.errors import (
    ConfigError,
    KeyCeremonyError,
    KeyExhausted,
    ProtocolViolation,
    RecordError,
)
from twopm_flower.privacy.secret_files import write_secret_file
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.digest import ZERO_DIGEST, tagged_digest

_APPLICATION_ID: Final = 0x32504D47  # "2PMG"
_VERSION: Final = 1
_SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE permits (
    number INTEGER PRIMARY KEY,
    key_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    manifest_digest TEXT NOT NULL, survivors TEXT NOT NULL, link TEXT NOT NULL,
    UNIQUE (key_id, round, attempt)
);
"""
_KEEP: Final = (
    "Keep the file as it is and put back a copy that is complete; without one, leave the task: "
    "an emptied guard would let sums be opened twice."
)


@dataclass(frozen=True)
class Permit:
    """One sum that may be opened.

    Attributes
    ----------
    key_id : str
        The key that opens it.
    round, attempt : int
        Which sum; both from 1.
    manifest_digest : str
        The manifest that lists what was added.
    survivors : tuple of str
        Addresses of the nodes in the sum, distinct and sorted.
    """

    key_id: str
    round: int
    attempt: int
    manifest_digest: str
    survivors: tuple[str, ...]


class Guard:
    """A node's ledger of permits in one SQLite file, held exclusively until it is closed.

    Parameters
    ----------
    path : Path
        The file; made with mode 0600 where there is none.
    min_contributors : int
        Fewest distinct nodes in a sum, 2 or more.
    cap : int
        Most sums, told apart by round and attempt, that one key may open.
    wait_s : float
        How long another holder of the file is waited for, in seconds.

    Raises
    ------
    ConfigError
        Another process holds the file for too long; or it is damaged, is no guard or is of a
        later version: then it is left as it is, and nothing is permitted.

    Examples
    --------
    >>> with closing(Guard(path, min_contributors=3, cap=10_000)) as guard:  # doctest: +SKIP
    ...     guard.permit(key_id=key.key_id, round_=1, attempt=1,
    ...                  manifest_digest=manifest.digest, survivors=manifest.nodes)
    """

    def __init__(
        self, path: Path, *, min_contributors: int, cap: int, wait_s: float = 10.0
    ) -> None:
        for name, value, least in (("min_contributors", min_contributors, 2), ("cap", cap, 1)):
            if value < least:
                raise ConfigError(f"the guard's {name} is {value}; it is {least} or more")
        self._path = path
        self._min_contributors = min_contributors
        self._cap = cap
        if not path.exists():
            _create(path)
        if not path.stat().st_size:  # SQLite would take it for a new database
            raise ConfigError(f"{path} is empty: it lost what it held", hint=_KEEP)
        with _explained(path, wait_s):
            # mode=rw: only _create makes a file, so that none is ever taken for an empty guard.
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=wait_s,
                isolation_level=None,
            )
        try:
            with _explained(path, wait_s):
                self._permits, self._link = self._lock_and_read()
        except BaseException:
            self._connection.close()
            raise

    def permit(
        self,
        *,
        key_id: str,
        round_: int,
        attempt: int,
        manifest_digest: str,
        survivors: Sequence[str],
    ) -> None:
        """Permit one sum to be opened, and remember it on disk before returning.

        The very same permit may be asked for again, so that a node that was killed between
        permit and use can go on, until a later attempt or round was permitted.

        Parameters
        ----------
        key_id : str
            The key that opens the sum.
        round_, attempt : int
            Which sum; both from 1.
        manifest_digest : str
            The manifest that lists what was added.
        survivors : sequence of str
            Addresses of the nodes in the sum.

        Raises
        ------
        ProtocolViolation
            Too few distinct nodes; another sum of the round was permitted, or a later round.
        KeyExhausted
            The key has opened as many sums as it may.
        ConfigError
            The file cannot be written; nothing is permitted then.
        """
        distinct = {address.lower(): address for address in survivors}
        wanted = Permit(
            key_id=key_id,
            round=round_,
            attempt=attempt,
            manifest_digest=manifest_digest,
            survivors=tuple(distinct[address] for address in sorted(distinct)),
        )
        if len(wanted.survivors) < self._min_contributors:
            raise ProtocolViolation(
                f"round {round_}, attempt {attempt}: a sum of {len(wanted.survivors)} nodes "
                f"({', '.join(wanted.survivors) or 'none'}) is not opened, the fewest are "
                f"{self._min_contributors}"
            )
        known = [permit for permit in self._permits if permit.key_id == key_id]
        if _repeats(wanted, known):
            return
        if len(known) >= self._cap:
            raise KeyExhausted(
                f"key {key_id} has opened {len(known)} sums, its cap is {self._cap}",
                hint="Rotate it: 'twopm model export', then 'twopm task create --initial-model "
                "FILE' starts a task that goes on from that model under a key of its own.",
            )
        self._append(wanted)

    def entries(self) -> tuple[Permit, ...]:
        """Return all permits, in the order in which they were given."""
        return tuple(self._permits)

    def used(self, key_id: str) -> int:
        """Return how many sums a key was permitted to open."""
        return sum(permit.key_id == key_id for permit in self._permits)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _lock_and_read(self) -> tuple[list[Permit], str]:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA synchronous = FULL")
        # In exclusive locking mode the lock that is taken here stays until the file is closed.
        run("BEGIN EXCLUSIVE")
        run("COMMIT")
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        if application != _APPLICATION_ID:
            raise ConfigError(f"{self._path} is not a guard of this package", hint=_KEEP)
        if version != _VERSION:
            raise ConfigError(
                f"{self._path} has the format of version {version}, this is version {_VERSION}",
                hint="Run the version of twopm-flower that wrote it, or a later one.",
            )
        findings = [row[0] for row in run("PRAGMA integrity_check")]
        if findings != ["ok"]:
            raise ConfigError(f"{self._path} is damaged: {findings[0]}", hint=_KEEP)
        rows = run(
            "SELECT number, key_id, round, attempt, manifest_digest, survivors, link "
            "FROM permits ORDER BY number"
        )
        return _checked(self._path, rows)

    def _append(self, permit: Permit) -> None:
        link = _link(self._link, permit)
        with _explained(self._path):
            self._connection.execute("BEGIN EXCLUSIVE")
            try:
                self._connection.execute(
                    "INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        len(self._permits) + 1,
                        permit.key_id,
                        permit.round,
                        permit.attempt,
                        permit.manifest_digest,
                        canonical_bytes(list(permit.survivors)).decode(),
                        link,
                    ),
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._permits.append(permit)
        self._link = link


def _repeats(wanted: Permit, known: Iterable[Permit]) -> bool:
    # True: permitted before, exactly so. False: new, and nothing stands against it.
    repeated = False
    for permit in known:
        if (permit.round, permit.attempt) > (wanted.round, wanted.attempt):
            raise ProtocolViolation(
                f"round {wanted.round}, attempt {wanted.attempt} is not opened: this node went on "
                f"to round {permit.round}, attempt {permit.attempt}"
            )
        if permit.round != wanted.round:
            continue
        if _folded(permit.survivors) != _folded(wanted.survivors):
            raise ProtocolViolation(
                f"round {wanted.round} was permitted to be opened as the sum of "
                f"{', '.join(permit.survivors)}; attempt {wanted.attempt} is the sum of "
                f"{', '.join(wanted.survivors)}: the difference would give single nodes away"
            )
        if (permit.attempt, permit.manifest_digest) != (wanted.attempt, wanted.manifest_digest):
            raise ProtocolViolation(
                f"round {wanted.round} was permitted to be opened in attempt {permit.attempt}, "
                f"under manifest {permit.manifest_digest}; the server now shows attempt "
                f"{wanted.attempt} with {wanted.manifest_digest}: many sums of one round would "
                "average away what hides its updates"
            )
        repeated = True
    return repeated


def _folded(addresses: Iterable[str]) -> list[str]:
    return [address.lower() for address in addresses]


def _create(path: Path) -> None:
    # The whole database at once: a crash leaves a complete empty guard, or no file.
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.executescript(_SCHEMA)
        data = memory.serialize()
    try:
        write_secret_file(path, data)
    except KeyCeremonyError as error:
        if path.exists():  # another process was faster
            return
        raise ConfigError(f"the guard cannot be made: {error.message}") from error


def _checked(path: Path, rows: Iterable[tuple[object, ...]]) -> tuple[list[Permit], str]:
    permits: list[Permit] = []
    link = ZERO_DIGEST
    for expected, (number, key_id, round_, attempt, digest, survivors, stored) in enumerate(
        rows, start=1
    ):
        permit = Permit(
            key_id=str(key_id),
            round=_integer(round_),
            attempt=_integer(attempt),
            manifest_digest=str(digest),
            survivors=_addresses(survivors),
        )
        link = _link(link, permit)
        if (number, stored) != (expected, link):
            raise ConfigError(
                f"{path} is damaged: permit {expected} is not the one that was written", hint=_KEEP
            )
        permits.append(permit)
    return permits, link


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _addresses(value: object) -> tuple[str, ...]:
    try:
        parsed = parse_canonical(str(value).encode(), what="survivors")
    except RecordError:
        return ()
    return tuple(map(str, parsed)) if isinstance(parsed, list) else ()


def _link(previous: str, permit: Permit) -> str:
    # SQLite checks its own structure only; the chain of digests finds a changed value.
    return tagged_digest(
        "guard/v1",
        canonical_bytes(
            {
                "attempt": permit.attempt,
                "key_id": permit.key_id,
                "manifest_digest": permit.manifest_digest,
                "previous": previous,
                "round": permit.round,
                "survivors": list(permit.survivors),
            }
        ),
    )


@contextmanager
def _explained(path: Path, wait_s: float | None = None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # Only errors of SQLite itself have a name; the binding raises some of its own.
        if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY":
            raise ConfigError(
                f"another process has held {path} for {wait_s:g} s",
                hint="Is this node running twice? Stop one of them.",
            ) from error
        if isinstance(error, sqlite3.OperationalError):
            raise ConfigError(f"{path} cannot be used: {error}; nothing was permitted") from error
        raise ConfigError(f"{path} is damaged, or no guard: {error}", hint=_KEEP) from error
