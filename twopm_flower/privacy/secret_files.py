"""Files that only their owner may read: written at once or not at all."""

import os
import secrets
import stat
from pathlib import Path

from twopm_flower.errors import KeyCeremonyError

_MAX_BYTES = 1 << 20


def write_secret_file(path: Path, data: bytes) -> None:
    """Write `data` to a new file with mode 0600.

    The bytes go to a temporary file beside it and to the disk before the name appears, so a
    crash leaves the whole file or none.

    Raises
    ------
    KeyCeremonyError
        If the file exists already, or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyCeremonyError(f"{path.parent} cannot be made: {error.strerror}.") from error
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, refuses to replace a key that is already there.
            os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise KeyCeremonyError(
            f"{path} exists already; a key is never overwritten.",
            hint="Move it away first, or choose another path.",
        ) from error
    except OSError as error:
        raise KeyCeremonyError(f"{path} cannot be written: {error.strerror}.") from error


def read_secret_file(path: Path) -> bytes:
    """Return the contents of a file that nobody but its owner may read.

    Raises
    ------
    KeyCeremonyError
        If the file is missing, too large, or readable or writable by group or others.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise KeyCeremonyError(
                    f"{path} has mode {stat.S_IMODE(mode):04o}: others can use this key.",
                    hint=f"Run `chmod 600 {path}`, and replace the key if it was exposed.",
                )
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KeyCeremonyError(
            f"The key file {path} cannot be read: {error.strerror}.",
            hint="`twopm keys` creates and shows keys.",
        ) from error
    if len(data) > _MAX_BYTES:
        raise KeyCeremonyError(f"{path} is larger than any key file.")
    return data


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
