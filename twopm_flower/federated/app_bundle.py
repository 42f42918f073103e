"""The digest of an unpacked Flower app: what code was submitted to the nodes."""

import sys
import tomllib
from pathlib import Path

from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest

_SKIPPED_FOLDERS = {"__pycache__", ".info"}


def app_bundle_digest(folder: Path | None) -> str:
    """Return the digest of all files of an unpacked app.

    Parameters
    ----------
    folder : Path or None
        The unpacked app; None where an app runs without one (in-process and some
        simulations), which has a digest of its own.
    """
    files: dict[str, str] = {}
    if folder is not None:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and not _SKIPPED_FOLDERS & set(relative.parts):
                files[relative.as_posix()] = tagged_digest("app-file/v1", path.read_bytes())
    return tagged_digest("app-bundle/v1", canonical_bytes(files))


def running_app_folder() -> Path | None:
    """Return the folder from which Flower loaded the running app, or None.

    Flower puts the unpacked app first on ``sys.path``; it is the first entry there with a
    ``pyproject.toml`` that has a ``[tool.flwr.app]`` table, below a folder named ``apps``.
    """
    for entry in sys.path:
        folder = Path(entry or ".").absolute()
        file = folder / "pyproject.toml"
        if folder.parent.name != "apps" or not file.is_file():
            continue
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue
        if "app" in table.get("tool", {}).get("flwr", {}):
            return folder
    return None
