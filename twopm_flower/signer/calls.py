"""Functions of contracts by their signature text, and what call data say in words.

``recordRound(bytes32 taskId, uint32 round)`` names a function, its selector and its
arguments, so a policy file needs no ABI beside it
(https://docs.soliditylang.org/en/latest/abi-spec.html).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError, ParseError
from eth_abi.grammar import parse
from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError
from twopm_flower.records.printable import printable

MAX_SHOWN = 120
_TOKENS = re.compile(r"\s*([(),]|[A-Za-z_$][\w$]*(?:\[\d*\])*|\[\d*\])")


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type as selectors have it, its name or ``""``, and a tuple's parts."""

    kind: str
    name: str = ""
    parts: tuple["Parameter", ...] = ()


@dataclass(frozen=True)
class Function:
    """A function of a contract.

    Attributes
    ----------
    name : str
    parameters : tuple of Parameter
    """

    name: str
    parameters: tuple[Parameter, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name(type name, (type name, ...) name, type[])``; names may be left out.

        Raises
        ------
        RecordError
            Not a function's signature.
        """
        name, opening, rest = text.strip().partition("(")
        if not opening or not re.fullmatch(r"[A-Za-z_$][\w$]*", name):
            raise RecordError(f"{text[:120]!r} is not a function's signature")
        tokens = _tokens(f"({rest}")
        parameters, left = _tuple(tokens, text)
        if left:
            raise RecordError(f"{text[:120]!r} goes on behind its parameters")
        return cls(name, parameters)

    @classmethod
    def from_abi(cls, entry: Mapping[str, Any]) -> Self:
        """Read a function's entry of a contract's ABI."""
        return cls(entry["name"], tuple(_from_abi(field) for field in entry["inputs"]))

    @property
    def signature(self) -> str:
        """The text that the selector is made of."""
        return f"{self.name}({','.join(parameter.kind for parameter in self.parameters)})"

    @property
    def selector(self) -> bytes:
        """The first four bytes of its call data."""
        return keccak(text=self.signature)[:4]

    @property
    def text(self) -> str:
        """The signature with the parameters' names, as `parse` reads it."""
        return f"{self.name}({', '.join(_text(parameter) for parameter in self.parameters)})"

    def encode(self, arguments: Sequence[Any]) -> bytes:
        """Return the call data for arguments.

        Raises
        ------
        RecordError
            They do not fit the parameters.
        """
        for parameter, value in zip(self.parameters, arguments, strict=False):
            _require_whole(parameter.kind, value, parameter.name or self.name)
        try:
            body = encode([parameter.kind for parameter in self.parameters], list(arguments))
        except (EncodingError, TypeError, ValueError) as error:
            raise RecordError(f"{self.text} cannot be called like this: {error}") from error
        return self.selector + body

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Return the arguments in call data.

        Raises
        ------
        RecordError
            Another selector; too short; or more bytes than the arguments have, which a
            contract would not look at and a person would not see.
        """
        if data[:4] != self.selector:
            raise RecordError(f"the data do not call {self.name}")
        try:
            _size_of_all([parse(p.kind) for p in self.parameters], data[4:], 0)
            values: tuple[Any, ...] = decode([p.kind for p in self.parameters], data[4:])
        except (DecodingError, ValueError, OverflowError) as error:
            raise RecordError(f"the arguments of {self.name} cannot be read: {error}") from error
        if self.encode(values) != data:
            raise RecordError(
                f"the data are not exactly a call of {self.name}: something is hidden in them"
            )
        return values

    def explain(self, data: bytes) -> str:
        """Return a call in words: its name and its arguments."""
        return f"{self.name}({_explain_all(self.parameters, self.decode(data))})"


def shown(value: Any) -> str:
    """Return a value for people: bytes as hexadecimal, text in quotes, nothing that steers."""
    if isinstance(value, bytes):
        text = "0x" + value.hex()
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(shown(element) for element in value)}]"
    elif isinstance(value, str) and not re.fullmatch(r"0x[0-9a-fA-F]*", value):
        # A quote in the text would end it, and what follows would read as another argument.
        escaped = printable(value).replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{escaped}"'
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 20]}… ({len(text)} long)"


def _explain_all(parameters: tuple[Parameter, ...], values: Sequence[Any]) -> str:
    said = []
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.parts and not parameter.kind.endswith("]"):
            text = f"({_explain_all(parameter.parts, value)})"
        else:
            text = shown(value)
        said.append(f"{parameter.name}={text}" if parameter.name else text)
    return ", ".join(said)


def _require_whole(kind: str, value: Any, name: str) -> None:
    # The encoder pads bytes that are too short, and says nothing.
    if isinstance(value, (list, tuple)):
        parts = _parts(kind, len(value))
        for part, element in zip(parts, value, strict=False):
            _require_whole(part, element, name)
        return
    size = re.fullmatch(r"bytes(\d+)", kind)
    if size and not (isinstance(value, bytes) and len(value) == int(size.group(1))):
        raise RecordError(f"{name} has to be exactly {size.group(1)} bytes")


def _size_of_all(kinds: Sequence[Any], data: bytes, start: int) -> int:
    # Pointers may lead to one place many times: a little data would decode to gigabytes. Call
    # data in their one form are as long as what they hold.
    size, place = 0, start
    for kind in kinds:
        if kind.is_dynamic:
            size += 32 + _size_of(kind, data, start + _word(data, place))
            place += 32
        else:
            fixed = _size_of(kind, data, place)
            size, place = size + fixed, place + fixed
        if size > len(data):
            raise RecordError("parts of the call data are used twice: something is hidden in them")
    return size


def _size_of(kind: Any, data: bytes, place: int) -> int:
    if kind.is_array:
        counted = not kind.arrlist[-1]
        count = _word(data, place) if counted else kind.arrlist[-1][0]
        head = 32 if counted else 0
        if count * 32 > len(data):
            raise RecordError(
                f"the arguments cannot be read: the data are too short for {count} elements"
            )
        return head + _size_of_all([kind.item_type] * count, data, place + head)
    if hasattr(kind, "components"):
        return _size_of_all(kind.components, data, place)
    first = _word(data, place)
    return 32 + -(-first // 32) * 32 if kind.is_dynamic else 32


def _word(data: bytes, place: int) -> int:
    if place + 32 > len(data):
        raise RecordError("the arguments cannot be read: the call data are cut off")
    return int.from_bytes(data[place : place + 32])


def _parts(kind: str, count: int) -> list[str]:
    parsed = parse(kind)
    if parsed.is_array:
        return [parsed.item_type.to_type_str()] * count
    return [part.to_type_str() for part in parsed.components]


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKENS.match(text, place)
        if match is None:
            raise RecordError(f"{text[:120]!r} is not a function's signature")
        found.append(match.group(1))
        place = match.end()
    return found


def _tuple(tokens: list[str], text: str) -> tuple[tuple[Parameter, ...], list[str]]:
    parameters: list[Parameter] = []
    rest = tokens[1:]
    while rest and rest[0] != ")":
        parameter, rest = _parameter(rest, text)
        parameters.append(parameter)
        if not rest or rest[0] not in ",)" or rest[:2] == [",", ")"]:
            raise RecordError(f"{text[:120]!r} is not a function's signature")
        if rest[0] == ",":
            rest = rest[1:]
    if not rest:
        raise RecordError(f"{text[:120]!r} has no closing bracket")
    return tuple(parameters), rest[1:]


def _parameter(tokens: list[str], text: str) -> tuple[Parameter, list[str]]:
    parts: tuple[Parameter, ...] = ()
    if tokens[0] == "(":
        parts, rest = _tuple(tokens, text)
        kind = f"({','.join(part.kind for part in parts)})"
        while rest and rest[0].startswith("["):
            kind, rest = kind + rest[0], rest[1:]
    else:
        kind, rest = {"uint": "uint256", "int": "int256"}.get(tokens[0], tokens[0]), tokens[1:]
        try:
            parse(kind).validate()
        except (ParseError, ValueError) as error:
            raise RecordError(f"{kind!r} in {text[:120]!r} is no type") from error
    name = ""
    if rest and re.fullmatch(r"[A-Za-z_$][\w$]*", rest[0]):
        name, rest = rest[0], rest[1:]
    return Parameter(kind, name, parts), rest


def _from_abi(field: Mapping[str, Any]) -> Parameter:
    if not field["type"].startswith("tuple"):
        return Parameter(field["type"], field["name"])
    parts = tuple(_from_abi(part) for part in field["components"])
    kind = f"({','.join(part.kind for part in parts)}){field['type'].removeprefix('tuple')}"
    return Parameter(kind, field["name"], parts)


def _text(parameter: Parameter) -> str:
    kind = parameter.kind
    if parameter.parts:
        suffix = kind[kind.rindex(")") + 1 :]
        kind = f"({', '.join(_text(part) for part in parameter.parts)}){suffix}"
    return f"{kind} {parameter.name}".strip()
