"""The receipts that a requester keeps: one file each, with the request and response beside it."""

import os
import secrets
from pathlib import Path
from typing import Final

from twopm_flower.config import make_private_folder
from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.inference.requester_key import inference_folder
from twopm_flower.records.inference import ReceiptFile

FOLDER: Final = "receipts"
MOST_BYTES: Final = 4 * 1024 * 1024
"""No more is read: a card and two statements have some ten kilobytes."""


class ReceiptFolder:
    """Receipts in a folder, named by the digest of what the service signed.

    Every file is readable by its owner alone, and appears whole or not at all. The receipt is
    written last, so that the frames that it speaks of are beside it whenever it is there.

    Parameters
    ----------
    folder : Path
        Made when the first receipt is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, receipt: ReceiptFile, request: bytes, response: bytes) -> Path:
        """Keep a receipt and both frames; return where the receipt is.

        Raises
        ------
        ConfigError
            The folder cannot be written.
        """
        path = self.path_of(receipt)
        try:
            make_private_folder(self.folder)
            _write(path.with_suffix(".request"), request)
            _write(path.with_suffix(".response"), response)
            _write(path, receipt.to_bytes())
        except OSError as error:
            raise _unwritable(path, error) from error
        return path

    def update(self, receipt: ReceiptFile) -> None:
        """Replace a receipt by one that says more, such as where it is anchored.

        Raises
        ------
        ConfigError
            The folder cannot be written.
        """
        path = self.path_of(receipt)
        try:
            _write(path, receipt.to_bytes())
        except OSError as error:
            raise _unwritable(path, error) from error

    def load(self) -> tuple[ReceiptFile, ...]:
        """Return all receipts, oldest first.

        Raises
        ------
        RecordError
            A file is no receipt; it is named.
        """
        receipts = [_read(path) for path in self.folder.glob("*.json")]
        return tuple(
            sorted(receipts, key=lambda r: (r.receipt.statement.issued_at, r.receipt_digest))
        )

    def path_of(self, receipt: ReceiptFile) -> Path:
        """Return where a receipt is, or would be, kept."""
        return self.folder / f"{receipt.receipt_digest[2:]}.json"


def kept_receipts(home: Path | None = None) -> ReceiptFolder:
    """Return the receipts of a home; ``$TWOPM_HOME``, or ``~/.twopm``, if none is given."""
    return ReceiptFolder(inference_folder(home) / FOLDER)


def _read(path: Path) -> ReceiptFile:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES)
        return ReceiptFile.from_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except RecordError as error:
        raise RecordError(
            f"{path} is no receipt: {error.message}", hint="Move it out of the folder."
        ) from error


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the receipt {path} cannot be written: {error.strerror}",
        hint="Make room, or name another home.",
    )
