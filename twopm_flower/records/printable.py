"""Text of other parties, made harmless: it is shown, and no terminal obeys it."""

import re
from typing import Final

# Controls of C0 and C1 (a terminal obeys them), marks that turn the direction of writing
# (a name then reads as another one), other line ends, and halves of characters, which no
# terminal can be sent.
UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object, *, keep: str = "") -> str:
    """Return text in which a sign stands for each character that would steer a terminal.

    Whoever wrote a title or a reason could otherwise colour, hide, overwrite or add to what
    this program says.

    Parameters
    ----------
    text : object
        Anything; its `str` is shown.
    keep : str
        Characters that stay as they are, such as line ends in text of our own.

    Returns
    -------
    str
        As many characters as before, in one line unless line ends are kept.
    """
    return UNPRINTABLE.sub(
        lambda found: found.group() if found.group() in keep else _sign(found.group()), str(text)
    )


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
