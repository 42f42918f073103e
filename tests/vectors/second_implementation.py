"""What both tests by a second implementation need; nothing of the package is imported."""

import hashlib
import json
from pathlib import Path

Q = 0x3FFFFFFFFED001
FOLDER = Path(__file__).parent


def vectors(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["vectors"]


def h(text):
    return bytes.fromhex(text.removeprefix("0x"))


def tagged(tag, data):
    return "0x" + hashlib.sha256(b"twopm-flower/" + tag.encode() + b"\0" + data).hexdigest()


def jcs(value):
    """RFC 8785, for the values that occur in the vectors."""
    if isinstance(value, dict):
        keys_ = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{jcs(key)}:{jcs(value[key])}" for key in keys_) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(jcs, value)) + "]"
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e21:
            return str(int(value))
        mantissa, _, exponent = repr(value).partition("e")
        return mantissa + (f"e{int(exponent):+d}" if exponent else "")
    return json.dumps(value, ensure_ascii=False)


def json_digest(tag, value):
    return tagged(tag, jcs(value).encode())


def abi(value):
    if isinstance(value, bool | int):
        return int(value).to_bytes(32)
    return h(value).rjust(32, b"\0")
