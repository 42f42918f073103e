"""What Flower will send to the nodes when an app is submitted, before it is submitted."""

import io
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from twopm_flower.errors import ConfigError
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest

_MANIFEST_FOLDER = ".info/"


def submitted_app_digest(app: Path) -> str:
    """Return the digest that nodes will find when they hash the unpacked app.

    Equal to :func:`~twopm_flower.federated.app_bundle.app_bundle_digest` of the folder into
    which Flower unpacks the bundle that ``flwr run APP`` builds.

    Parameters
    ----------
    app : Path
        The folder with the app's ``pyproject.toml``.

    Raises
    ------
    ConfigError
        Flower cannot build the app; its words are quoted.
    """
    try:
        bundle = build_fab_from_disk(app)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"Flower cannot build the app in {app}: {error}",
            hint="Try 'flwr build' there; the folder has a pyproject.toml with [tool.flwr.app].",
        ) from error
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        files = {
            name: tagged_digest("app-file/v1", archive.read(name))
            for name in sorted(archive.namelist())
            if not name.startswith(_MANIFEST_FOLDER)
        }
    return tagged_digest("app-bundle/v1", canonical_bytes(files))
