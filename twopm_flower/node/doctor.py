"""Is a machine set up, and are secrets where they must not be: findings, and how to mend them."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from twopm_flower.chain.base import ChainReader
from twopm_flower.config import Settings, load_settings
from twopm_flower.errors import DataError, RealDataMissingError, TwopmError
from twopm_flower.federated.home import NodeHome
from twopm_flower.federated.progress import is_forgotten
from twopm_flower.node.chain_file import open_any_reader, where_read
from twopm_flower.node.data_files import find_data
from twopm_flower.node.delivery import undelivered
from twopm_flower.node.forgetting import leftover_keys
from twopm_flower.node.provision import enclosing_app
from twopm_flower.signer.keystore import read_password

OLDEST_PYTHON = (3, 11)
_MAX_KEY_BYTES = 4096
_SECRET_NAMES = re.compile(r".*\.(key|pem|salt)|id_(rsa|ecdsa|ed25519)|.*\.keystore\.json")
_SECRET_CONTENT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|twopm-flower shared key|^(0x)?[0-9a-f]{64}\s*$"
)
_SKIPPED = {".venv", ".git", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    subject : str
    state : {"good", "note", "bad"}
        ``note`` is worth knowing; ``bad`` has to be mended.
    detail : str
    remedy : str
        What to do; empty where nothing is to be done.
    """

    subject: str
    state: Literal["good", "note", "bad"]
    detail: str
    remedy: str = ""


def examine(home: Path, app: Path) -> tuple[Finding, ...]:
    """Return what all checks found.

    Parameters
    ----------
    home : Path
    app : Path
        The folder of the Flower app that is submitted from here; checked for secrets.
    """
    findings = [*_python(), *_packages(), *_home(home), *_secrets_in_app(home, app)]
    try:
        settings = load_settings(home)
    except TwopmError as error:
        return (*findings, Finding("settings", "bad", error.message, error.hint or ""))
    chain, reader = _chain(settings)
    findings += [
        *_passwords(settings),
        *chain,
        *_data(home),
        *_tasks(home),
        *_leftover_keys(home, reader),
        *_outboxes(home),
    ]
    return tuple(findings)


def _python() -> Iterator[Finding]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield Finding("Python", "good", found)
    else:
        yield Finding("Python", "bad", f"{found} is too old", "Install Python 3.11 or newer.")


def _packages() -> Iterator[Finding]:
    problems = []
    for text in requires("twopm-flower") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            problems.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            problems.append(f"{wanted.name} is {found}, wanted is {wanted.specifier}")
    if problems:
        yield Finding(
            "packages", "bad", "; ".join(problems), "Run: pip install --upgrade twopm-flower"
        )
    else:
        yield Finding("packages", "good", f"twopm-flower {version('twopm-flower')}, all present")


def _home(home: Path) -> Iterator[Finding]:
    if not home.exists():
        yield Finding(
            "home",
            "note",
            f"{home} does not exist",
            "'twopm node init' or 'twopm chain deploy' makes it.",
        )
        return
    opened = [path for path in _owned(home) if os.name == "posix" and _is_open(path)]
    for path in opened:
        mode = stat.S_IMODE(path.stat().st_mode)
        remedy = (
            f"Run: chmod 700 {path}"
            if path.is_dir()
            else f"Run: chmod 600 {path}; replace the key if it was exposed."
        )
        yield Finding(
            "permissions", "bad", f"{path} has mode {mode:03o}: others can reach it", remedy
        )
    if not opened:
        yield Finding("home", "good", f"{home}, closed to others")


def _owned(home: Path) -> Iterator[Path]:
    yield home
    for path in sorted(home.rglob("*")):
        if path.is_file() and _SECRET_NAMES.fullmatch(path.name) and not _is_public(path):
            yield path


def _is_public(path: Path) -> bool:
    # A certificate is for everybody, unless a private key stands beside it in the file.
    if path.suffix != ".pem":
        return False
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return b"-----BEGIN CERTIFICATE-----" in data and not _SECRET_CONTENT.search(data)


def _is_open(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _passwords(settings: Settings) -> Iterator[Finding]:
    for file in (settings.node.identity_password_file, settings.coordinator.key_password_file):
        where = settings.in_home(file)
        if where is not None:
            try:
                read_password(where)
            except TwopmError as error:
                yield Finding("password file", "bad", error.message, error.hint or "")


def _secrets_in_app(home: Path, app: Path) -> Iterator[Finding]:
    folder = app.absolute()
    if enclosing_app(folder) is None:
        yield Finding("app folder", "good", f"{folder} is no Flower app: nothing is sent from it")
        return
    if home.is_relative_to(folder):
        yield Finding(
            "app folder",
            "bad",
            f"the home {home} is inside the Flower app {folder}",
            "Move the home elsewhere: what is in an app's folder may be sent to every node.",
        )
    secrets = [path for path in _files(folder) if _is_secret(path)]
    for path in secrets:
        yield Finding(
            "app folder",
            "bad",
            f"{path} looks like a secret key inside the Flower app {folder}",
            "Move it to TWOPM_HOME: what is in an app's folder may be sent to every node.",
        )
    if not secrets and not home.is_relative_to(folder):
        yield Finding("app folder", "good", f"no secrets in {folder}")


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED)
        yield from (Path(root) / name for name in sorted(names))


def _is_secret(path: Path) -> bool:
    if not _SECRET_NAMES.fullmatch(path.name):
        return False
    try:
        if not path.is_file() or path.stat().st_size > _MAX_KEY_BYTES:
            return False
        return path.suffix == ".salt" or bool(_SECRET_CONTENT.search(path.read_bytes()))
    except OSError:
        return False


def _chain(settings: Settings) -> tuple[list[Finding], ChainReader | None]:
    if settings.chain is None:
        remedy = (
            "Simulations bring their own. Otherwise run 'twopm node init' or 'twopm chain use'."
        )
        return [Finding("chain", "note", "none is configured", remedy)], None
    try:
        reader = open_any_reader(settings.chain)
        now = reader.status()
    except TwopmError as error:
        remedy = error.hint or "Start it, or correct rpc_url in config.toml."
        return [Finding("chain", "bad", error.message, remedy)], None
    place = where_read(settings.chain, now.endpoint)
    found = f"{place}: the pinned chain ({settings.chain.family}), at block {now.head_block}"
    return [Finding("chain", "good", found)], reader


def _data(home: Path) -> Iterator[Finding]:
    try:
        table = find_data(home, "mat", require_real=True)
    except RealDataMissingError as error:
        detail = "no student-mat.csv; the showcase would train on made-up rows"
        yield Finding("data", "note", detail, f"Only if you want the real ones: {error.hint}")
        return
    except DataError as error:
        yield Finding("data", "note", error.message, error.hint or "")
        return
    yield Finding("data", "good", f"{table.label} in {table.path}")


def _tasks(home: Path) -> Iterator[Finding]:
    for task_id in NodeHome(home).task_ids():
        try:
            halted = NodeHome(home).task(task_id).load_progress().halted
        except TwopmError as error:
            yield Finding("task", "bad", f"{task_id}: {error.message}", error.hint or "")
            continue
        if halted is not None and not is_forgotten(halted):
            yield Finding(
                "task",
                "bad",
                f"this node stopped in {task_id}: {halted}",
                f"Find out why; then run: twopm node resume {task_id}",
            )


def _leftover_keys(home: Path, reader: ChainReader | None) -> Iterator[Finding]:
    for left in leftover_keys(home, reader):
        remedy = f"Run: twopm node forget {left.task_id}"
        if left.ended is not None:
            yield Finding(
                "leftover keys",
                "bad",
                f"{left.task_id} is {left.ended}, and one-time keys of it are still here: "
                f"{', '.join(left.files)}",
                remedy,
            )
        else:
            yield Finding(
                "leftover keys",
                "note",
                f"one-time keys of {left.task_id} were not used for a day, and the chain cannot "
                f"be asked whether it is over: {', '.join(left.files)}",
                f"If it is: {remedy[0].lower()}{remedy[1:]}",
            )


def _outboxes(home: Path) -> Iterator[Finding]:
    for file in sorted(home.glob("runs/*/outbox.sqlite")):
        waiting = undelivered(file.parent)
        if waiting:
            task_id = file.parent.name
            yield Finding(
                "outbox",
                "bad",
                f"not on chain of task {task_id}: {', '.join(waiting)}",
                f"Run: twopm chain deliver {task_id}",
            )
