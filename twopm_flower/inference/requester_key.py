"""The key that a requester signs its requests with: made on first use, kept in its home.

It names the requester to a service (whose budget and allow-list go by its address) and to
whoever reads a receipt. It is not the key that inputs are encrypted with: such a key is made
for each request and is never on disk.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from twopm_flower.config import default_home, make_private_folder
from twopm_flower.errors import ConfigError
from twopm_flower.signer.keystore import LocalSigner, create_key_file

FOLDER: Final = "inference"
KEY_FILE: Final = "requester.key"


def inference_folder(home: Path | None = None) -> Path:
    """Return the folder of a home in which a requester's key and receipts are kept.

    Parameters
    ----------
    home : Path, optional
        ``$TWOPM_HOME``, or ``~/.twopm``, if not given.

    Raises
    ------
    ConfigError
        It cannot be made.
    """
    folder = (default_home() if home is None else home.expanduser().absolute()) / FOLDER
    try:
        make_private_folder(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made: {error.strerror}",
            hint="Name another home with --home or TWOPM_HOME.",
        ) from error
    return folder


def requester_signer(home: Path | None = None) -> LocalSigner:
    """Return the signer of a home's requester; its key is made if there is none.

    Parameters
    ----------
    home : Path, optional
        ``$TWOPM_HOME``, or ``~/.twopm``, if not given.

    Raises
    ------
    ConfigError
        The key file is readable by others, or is none.
    """
    path = inference_folder(home) / KEY_FILE
    if not path.exists():
        # Another process may make one at the same time: then its key is ours, too.
        with suppress(ConfigError):
            return create_key_file(path)
    return LocalSigner.from_file(path)
