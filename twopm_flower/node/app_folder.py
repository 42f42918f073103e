"""The showcase's Flower app in a folder of its own, ready to be submitted.

Submitting from a checkout works, too, but Flower then searches all of it, environments
included, which takes longer than a round. Both build the same bundle.
"""

import shutil
from pathlib import Path

import twopm_flower
from twopm_flower.errors import ConfigError

_PACKAGE = Path(twopm_flower.__file__).resolve().parent
_FILES = ("pyproject.toml", "LICENSE")


def write_app_folder(folder: Path) -> Path:
    """Write the showcase's app to an empty folder, and return the folder.

    Raises
    ------
    ConfigError
        The installed package lacks the app's metadata.
    """
    sources = (_PACKAGE / "app" / "bundle", _PACKAGE.parent)
    found = next((path for path in sources if all((path / f).is_file() for f in _FILES)), None)
    if found is None:
        raise ConfigError(
            f"neither {sources[0]} nor {sources[1]} holds {' and '.join(_FILES)}",
            hint="Install twopm-flower again, or run from a checkout.",
        )
    target = folder / "twopm_flower" / "app"
    for module in sorted((_PACKAGE / "app").rglob("*.py")):
        copy = target / module.relative_to(_PACKAGE / "app")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, copy)
    for name in _FILES:
        shutil.copyfile(found / name, folder / name)
    return folder
