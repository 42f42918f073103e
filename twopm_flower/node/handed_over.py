"""Reading a record that somebody handed over as a file, and telling which one it is instead."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pydantic_core

from twopm_flower.errors import RecordError
from twopm_flower.records.fields import Record

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True)
class Handed:
    """A kind of file that operators, coordinator and verifiers hand to each other.

    Attributes
    ----------
    name : str
        As the documentation calls it.
    article : str
        ``a`` or ``an``.
    writer : str
        Which command writes it, as a sentence.
    fields : frozenset of str
        The record's fields by which it is told from the other kinds.
    """

    name: str
    article: str
    writer: str
    fields: frozenset[str]


BUNDLE: Final = Handed(
    "bundle", "a", "'twopm bundle export' writes one.", frozenset({"terms", "roster", "rounds"})
)
INVITATION: Final = Handed(
    "invitation",
    "an",
    "The coordinator's 'twopm task create' writes it.",
    frozenset({"deployment", "task_id", "terms"}),
)
CARD: Final = Handed(
    "card", "a", "'twopm node init' writes one.", frozenset({"name", "registration"})
)
REQUEST: Final = Handed(
    "request",
    "a",
    "A node's 'twopm task join' writes it.",
    frozenset({"registration", "membership"}),
)
ROSTER: Final = Handed(
    "roster", "a", "The coordinator's 'twopm task start' writes it.", frozenset({"members"})
)
DEAL: Final = Handed(
    "deal", "a", "The first member's 'twopm keys deal' writes it.", frozenset({"deal", "boxes"})
)
RECEIPT: Final = Handed(
    "receipt",
    "a",
    "'twopm infer predict' keeps one of each prediction.",
    frozenset({"card", "request", "receipt"}),
)

# A bundle has the fields of an invitation, too, and is looked for first.
KINDS: Final = (BUNDLE, INVITATION, CARD, REQUEST, ROSTER, DEAL, RECEIPT)


def read_handed_over(path: Path, kind: Handed, record: type[RecordType]) -> RecordType:
    """Return the record in a file that somebody handed over.

    Parameters
    ----------
    path : Path
    kind : Handed
        What the file should be.
    record : type
        The record that such a file holds.

    Raises
    ------
    RecordError
        The file cannot be read, is something else, or is not as it was written. It is named,
        and so is the command that writes such a file; of what it holds nothing is shown
        unless it is of that kind.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(
            f"the {kind.name} {path} cannot be read: {error.strerror}", hint=kind.writer
        ) from error
    try:
        return record.from_bytes(data)
    except RecordError as error:
        try:
            value = pydantic_core.from_json(data)
        except ValueError:
            value = None
        found = _kind_of(value)
        if found is kind:
            raise RecordError(
                f"the {kind.name} {path} cannot be used: {error.message}",
                hint="It was changed after it was written, or another version of twopm-flower "
                f"wrote it. {kind.writer}",
            ) from error
        instead = "" if found is None else f": it looks like {found.article} {found.name}"
        raise RecordError(f"{path} is no {kind.name}{instead}", hint=kind.writer) from error


def _kind_of(value: object) -> Handed | None:
    if not isinstance(value, dict):
        return None
    return next((kind for kind in KINDS if kind.fields <= value.keys()), None)
