"""The service of a ledger: puts signed actions in order, seals them, and hands entries out.

It can withhold entries, but neither make up nor change one: readers check them all.
"""

import argparse
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

from twopm_flower.chain.json_rpc import (
    INVALID_PARAMS,
    LIMIT_EXCEEDED,
    REVERTED,
    RpcError,
    answer,
)
from twopm_flower.chain.ledger_records import Entry, SignedAction, new_genesis, seal_entry
from twopm_flower.chain.ledger_replay import Replay
from twopm_flower.chain.ledger_store import MAX_PAGE_ENTRIES, LedgerStore
from twopm_flower.chain.local_process import ACCOUNT_KEY, answer_until, serve_from_command_line
from twopm_flower.chain.process_lock import ProcessLock
from twopm_flower.config import make_private_folder
from twopm_flower.errors import ChainError, RecordError, TransactionReverted
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.fields import checksum_address
from twopm_flower.signer.keystore import LocalSigner, create_key_file

OPERATOR_KEY = "operator.key"
MAX_ACTION_BYTES = 256 * 1024
WRITES_PER_MINUTE = 6000
MAX_AUTHORS_COUNTED = 10_000


class LedgerService:
    """Opens the ledger in a folder, or makes one, and answers for it.

    Parameters
    ----------
    folder : Path
        Holds ``ledger.sqlite``, ``operator.key``, which seals entries, and ``account.key``, the
        key of an account to write from.
    members : collection of str, optional
        The addresses of the accounts that may write; without it, any account may.
    writes_per_minute : int
        How many entries one account may add in a minute; each signature that an entry brings
        to a model, and that everybody has to check, counts as one more.
    clock : callable
        The time, in seconds since the epoch.

    Attributes
    ----------
    folder : Path
        The ledger's folder.
    replay : Replay
        The ledger as it stands.
    signer : LocalSigner
        Signs for ``account.key``.

    Raises
    ------
    ChainError
        Another process has it open, it is damaged, or the folder holds something else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        members: Collection[str] = (),
        writes_per_minute: int = WRITES_PER_MINUTE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._members = {checksum_address(member) for member in members}
        self._clock = clock
        self._limit = _WriteLimit(writes_per_minute)
        self._writing = threading.Lock()
        try:
            make_private_folder(folder)
        except OSError as error:
            raise ChainError(
                f"no ledger can be kept in {folder}: {error.strerror}",
                hint="Name a folder that is a ledger's, or that does not exist yet.",
            ) from error
        self._lock = ProcessLock(folder / "ledger.lock", owner="a ledger's service")
        try:
            self._operator = _key(folder / OPERATOR_KEY)
            self.signer = _key(folder / ACCOUNT_KEY)
            self._store = LedgerStore(folder)
            try:
                self.replay = self._open()
            except BaseException:
                self._store.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Close the file and let others open it."""
        with self._writing:
            self._store.close()
            self._lock.release()

    def answer(self, request: Any) -> Any:
        """Answer a parsed JSON-RPC request or batch of requests; never raises."""
        methods: dict[str, Callable[..., Any]] = {
            "ledger_info": self._info,
            "ledger_entries": self._entries,
            "ledger_submit": self._submit,
        }
        return answer(methods, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> Replay:
        genesis = self._store.genesis()
        if genesis is None:
            genesis = new_genesis(self._operator.address, int(self._clock()))
            self._store.set_genesis(genesis)
        if genesis.operator != self._operator.address:
            raise ChainError(
                f"{OPERATOR_KEY} is the key of {self._operator.address}, "
                f"but this ledger's operator is {genesis.operator}",
                hint="Put the operator's key back.",
            )
        replay = Replay(genesis)
        while page := self._store.entries(replay.head + 1)[1]:
            for entry in page:
                replay.take(entry)
        return replay

    def _info(self) -> dict[str, Any]:
        return {"genesis": self.replay.genesis.to_json(), "head": self._store.page(1, 0)[0]}

    def _entries(self, first: Any, limit: Any = MAX_PAGE_ENTRIES) -> dict[str, Any]:
        for number in (first, limit):
            if type(number) is not int or not 0 <= number < 2**53:
                raise RpcError(INVALID_PARAMS, "first and limit are whole numbers")
        head, page = self._store.page(max(1, first), limit)
        return {"head": head, "entries": [parse_canonical(body) for body in page]}

    def _submit(self, value: Any) -> dict[str, Any]:
        try:
            if len(canonical_bytes(value)) > MAX_ACTION_BYTES:
                raise RpcError(INVALID_PARAMS, f"an action has at most {MAX_ACTION_BYTES} bytes")
            signed = SignedAction.from_json(value)
            author = signed.check(self.replay.deployment).author
        except RecordError as error:
            raise RpcError(INVALID_PARAMS, str(error)) from error
        with self._writing:
            number = self.replay.numbers.get(signed.action.digest)
            if number is not None:
                return {"entry": parse_canonical(self._store.page(number, 1)[1][0])}
            self._require_welcome(author, 1 + len(getattr(signed.action, "signatures", ())))
            try:
                return {"entry": self._add(signed).to_json()}
            except TransactionReverted as error:
                data = {"error": error.error_name, "arguments": error.arguments}
                raise RpcError(REVERTED, error.message, data) from error

    def _require_welcome(self, author: str, cost: int) -> None:
        if self._members and author not in self._members:
            raise RpcError(INVALID_PARAMS, f"{author} may not write to this ledger")
        if not self._limit.allows(author, self._clock(), cost):
            raise RpcError(LIMIT_EXCEEDED, f"{author} writes too often; wait a little")

    def _add(self, signed: SignedAction) -> Entry:
        replay = self.replay
        # A clock that was set back does not set the ledger back.
        now = max(int(self._clock()), replay.times[-1])
        effect = replay.decide(signed.action, now)
        entry = seal_entry(
            replay.head + 1,
            replay.digests[-1],
            now,
            signed,
            operator=self._operator,
            deployment=replay.deployment,
        )
        self._store.append(entry)
        replay.append(entry, effect)
        return entry


class _WriteLimit:
    """A bucket for each author, which fills evenly and empties by what each write costs."""

    def __init__(self, per_minute: int) -> None:
        self._size = float(max(1, per_minute))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, author: str, now: float, cost: int) -> bool:
        level, then = self._buckets.pop(author, (self._size, now))
        level = min(self._size, level + max(0.0, now - then) * self._size / 60)
        # What costs more than a whole bucket takes one.
        price = min(float(cost), self._size)
        allowed = level >= price
        self._buckets[author] = (level - price if allowed else level, now)
        while len(self._buckets) > MAX_AUTHORS_COUNTED:
            self._buckets.popitem(last=False)
        return allowed


def _key(path: Path) -> LocalSigner:
    return LocalSigner.from_file(path) if path.exists() else create_key_file(path)


def main() -> int:
    """Serve from the command line: ``python -m twopm_flower.chain.ledger_service --folder F``."""
    parser = argparse.ArgumentParser(description="Serve the ledger in a folder.")
    parser.add_argument("--member", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--writes-per-minute", type=int, default=WRITES_PER_MINUTE)

    options, _ = parser.parse_known_args()

    def serve(
        folder: Path, host: str, port: int, ready: Callable[[str, int], None], stop: threading.Event
    ) -> None:
        with LedgerService(
            folder, members=options.member, writes_per_minute=options.writes_per_minute
        ) as service:
            chain_id = service.replay.deployment.chain_id
            answer_until(stop, service, host, port, ready=lambda url: ready(url, chain_id))

    return serve_from_command_line(serve, parser)


if __name__ == "__main__":
    sys.exit(main())
