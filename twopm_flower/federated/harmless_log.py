"""Shows what this package's log quotes of other parties, and lets none of it steer a terminal."""

import logging
from collections.abc import Mapping
from numbers import Number

from twopm_flower.records.printable import printable

_OURS = "twopm_flower"
_LAYOUT = "\n\t"
"""What the format strings and tracebacks of a program contain themselves."""


class HarmlessLog(logging.Filter):
    """Rewrites records of this package before a handler shows them; lets all others pass.

    A quoted value stays within its line, so that it cannot pass for a line of its own.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record, and let it pass."""
        if record.name.split(".", 1)[0] == _OURS:
            record.msg = printable(record.msg, keep=_LAYOUT)
            if isinstance(record.args, Mapping):
                record.args = {key: _quoted(value) for key, value in record.args.items()}
            elif record.args:
                record.args = tuple(_quoted(value) for value in record.args)
            if record.exc_info and not record.exc_text:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
            if record.exc_text:
                record.exc_text = printable(record.exc_text, keep=_LAYOUT)
        return True


HARMLESS_LOG = HarmlessLog()
"""The one filter: a handler takes the same one only once."""


def _quoted(value: object) -> object:
    return value if isinstance(value, Number) else printable(value)
