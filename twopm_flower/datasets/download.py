"""Fetching a published student CSV from UCI into the cache, checked against its hash."""

import hashlib
import io
import os
import time
import zipfile
from pathlib import Path
from typing import Final

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from twopm_flower.config import make_private_folder
from twopm_flower.datasets.schema import PublishedFile
from twopm_flower.errors import DataError

UCI_URL: Final = "https://archive.ics.uci.edu/static/public/320/student+performance.zip"
INNER_ARCHIVE: Final = "student.zip"
CONNECT_TIMEOUT_S: Final = 5.0
TOTAL_TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 4 * 1024 * 1024
"""Above this, an archive or one of its members is not the 20 kB archive that we asked for."""

_CHUNK_BYTES = 1024


def download(
    file: PublishedFile,
    folder: Path,
    *,
    url: str = UCI_URL,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    total_timeout_s: float = TOTAL_TIMEOUT_S,
    progress: bool = True,
) -> Path:
    """Download one CSV of the data set.

    Parameters
    ----------
    file : PublishedFile
        What is wanted; its SHA-256 must come out.
    folder : Path
        Where the CSV is kept; created if need be. The file appears there whole or not at all.
    url : str
        The archive at UCI.
    connect_timeout_s, total_timeout_s : float
        Seconds to wait for the connection, and for everything.
    progress : bool
        Show a progress bar on standard error.

    Returns
    -------
    Path
        The CSV in `folder`.

    Raises
    ------
    DataError
        No answer in time, a refusal, no such archive member, other bytes than published, or a
        folder that cannot be written. URL and folder are named.
    """
    hint = (
        f"Download {url} yourself, unpack {INNER_ARCHIVE} inside it, "
        f"and run: twopm data add {file.name} (it is kept in {folder})."
    )
    try:
        archive = _fetch(url, connect_timeout_s, total_timeout_s, progress)
    except requests.RequestException as error:
        raise DataError(f"Cannot download {url}: {_reason(error)}.", hint=hint) from error
    except TimeoutError:
        raise DataError(
            f"Cannot download {url}: it took longer than {total_timeout_s:g} s.", hint=hint
        ) from None
    try:
        data = _member(_member(archive, INNER_ARCHIVE), file.name)
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{url} is not the archive that was expected: {error}.", hint=hint
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{file.name} from {url} has sha256 {digest}, not the published {file.sha256}.",
            hint="Do not use it. " + hint,
        )
    return _write(folder, file.name, data)


def _fetch(url: str, connect_timeout_s: float, total_timeout_s: float, progress: bool) -> bytes:
    deadline = time.monotonic() + total_timeout_s
    timeouts = (connect_timeout_s, total_timeout_s)
    data = bytearray()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with requests.get(url, stream=True, timeout=timeouts) as response, bar:
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        task = bar.add_task(
            "Downloading the student data (UCI)", total=int(length) if length.isdigit() else None
        )
        for chunk in response.iter_content(_CHUNK_BYTES):
            data += chunk
            bar.update(task, completed=len(data))
            if len(data) > MAX_BYTES:
                raise requests.RequestException(f"more than {MAX_BYTES} bytes arrive")
            if time.monotonic() > deadline:
                raise TimeoutError
    return bytes(data)


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return "nobody answers"
    if isinstance(error, requests.ReadTimeout):
        return "the answer stopped"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _member(archive: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        if opened.getinfo(name).file_size > MAX_BYTES:
            raise ValueError(f"{name} is larger than {MAX_BYTES} bytes")
        return opened.read(name)


def _write(folder: Path, name: str, data: bytes) -> Path:
    target = folder / name
    # Two processes may download at once: each has its own part, and renaming is atomic.
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        make_private_folder(folder)
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"Cannot write {target}: {error.strerror}.", hint="Set TWOPM_HOME to a folder of yours."
        ) from error
    return target
