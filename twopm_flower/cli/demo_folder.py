"""Where a demo puts everything, and which earlier demos a new one may remove."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twopm_flower.config import default_home, make_private_folder
from twopm_flower.errors import ConfigError

# Held while a demo runs, and free however it ended: by its end, Ctrl-C or a power cut.
_LOCK = "demo.lock"


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Give the demo a folder of its own, and mark it as in use meanwhile.

    Parameters
    ----------
    keep : Path or None
        The folder to use; None means a new one below ``$TWOPM_HOME/demo``.

    Raises
    ------
    ConfigError
        `keep` is not empty.
    """
    if keep is not None:
        folder = keep.expanduser().absolute()
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", hint="Choose another folder for --keep.")
        make_private_folder(folder)
    else:
        parent = default_home() / "demo"
        make_private_folder(parent)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def remove_former_demos(latest: Path) -> int:
    """Remove the demos beside this one that are over, finished or not, and return how many."""
    over = [file.parent for file in latest.parent.glob(f"run-*/{_LOCK}") if not _is_held(file)]
    over = [folder for folder in over if folder != latest]
    for folder in over:
        shutil.rmtree(folder)
    return len(over)


def _is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
