"""A file that lives in memory, for libraries that only read and write paths."""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class ScratchFile:
    """A file without a name on any disk, gone when the block ends.

    Where the system has no ``memfd_create`` (macOS, Windows) it is a temporary file that
    only its owner can read (mode 0600), removed when the block ends.

    Attributes
    ----------
    path : str
        What to hand to the library.
    """

    path: str

    def __init__(self) -> None:
        self._named: Path | None = None
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("twopm", os.MFD_CLOEXEC)
            self.path = f"/proc/self/fd/{self._fd}"
        else:
            self._fd, self.path = tempfile.mkstemp(prefix="twopm-")
            self._named = Path(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
        if self._named is not None:
            self._named.unlink()

    def write(self, data: bytes) -> None:
        """Replace the contents."""
        view, offset = memoryview(data), 0
        while offset < len(data):
            offset += os.pwrite(self._fd, view[offset:], offset)
        # Cut off afterwards: pages that are there already need not be cleared again.
        os.ftruncate(self._fd, len(data))

    def read(self) -> bytes:
        """Return the contents."""
        size, pieces, offset = os.fstat(self._fd).st_size, [], 0
        while offset < size and (piece := os.pread(self._fd, size - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)
