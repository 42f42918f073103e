"""A content-addressed store: bytes are kept under their digest and checked when read."""

import os
import re
from typing import Any

import fsspec

from twopm_flower.errors import RecordError
from twopm_flower.records.digest import tagged_digest


class ArtifactStore:
    """Artifacts under a directory or any URL that fsspec understands.

    Parameters
    ----------
    url : str
        A folder, or an fsspec URL such as ``s3://bucket/prefix`` (with the driver installed).

    Examples
    --------
    >>> store = ArtifactStore("memory://docs")
    >>> digest = store.put(b"bytes")
    >>> store.get(digest)
    b'bytes'
    """

    def __init__(self, url: str) -> None:
        self._fs: Any
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def _path(self, digest: str) -> str:
        if not re.fullmatch(r"0x[0-9a-f]{64}", digest):
            raise RecordError(
                f"{digest!r} is not a digest: 0x and 64 lower-case hexadecimal digits"
            )
        return f"{self._root}/{digest[2:4]}/{digest[4:]}"

    def put(self, data: bytes) -> str:
        """Store bytes and return their digest; storing the same bytes again changes nothing."""
        digest = tagged_digest("artifact/v1", data)
        path = self._path(digest)
        if not self._fs.exists(path):
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            # Written beside and moved: a reader never sees half an artifact under its digest.
            temporary = f"{path}.{os.getpid()}"
            with self._fs.open(temporary, "wb") as file:
                file.write(data)
            self._fs.mv(temporary, path)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes with this digest.

        Raises
        ------
        RecordError
            Not a digest, not in the store, or the stored bytes have another digest.
        """
        path = self._path(digest)
        if not self._fs.exists(path):
            raise RecordError(f"artifact {digest} is not in the store {self._root}")
        with self._fs.open(path, "rb") as file:
            data = bytes(file.read())
        if tagged_digest("artifact/v1", data) != digest:
            raise RecordError(
                f"artifact {digest} in {self._root} has been altered",
                hint="Restore it from another copy.",
            )
        return data
