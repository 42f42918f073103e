"""Domain-separated digests: no two kinds of bytes can ever share one."""

import hashlib

PREFIX = "twopm-flower/"
ZERO_DIGEST = "0x" + "00" * 32


def tagged_digest(tag: str, *parts: bytes) -> str:
    """Return the SHA-256 digest of `parts` under a domain tag.

    The hashed bytes are ``"twopm-flower/" || tag || 0x00 || parts...``; a tag never
    contains a zero byte, so tags of different length cannot run into the data. The
    parts are concatenated: a caller with parts of variable length frames them itself.

    Parameters
    ----------
    tag : str
        What the bytes are, with its version: ``"update/v1"``.
    *parts : bytes
        The canonical bytes, in order.

    Returns
    -------
    str
        ``0x`` and 64 lower-case hexadecimal digits.
    """
    if "\0" in tag:
        raise ValueError(f"domain tag {tag!r} contains a zero byte")
    state = hashlib.sha256(PREFIX.encode() + tag.encode() + b"\0")
    for part in parts:
        state.update(part)
    return "0x" + state.hexdigest()
