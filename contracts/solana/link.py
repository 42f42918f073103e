"""Links BPF object files into one program that Solana loads: sBPF version 3.

``clang -target bpfel`` writes relocatable ELF objects; Solana's loader wants an executable
with exactly two segments, the read-only data at address 0 and the code at ``1 << 32``
(SIMD-0189), in which every system call is the hash of its name (SIMD-0178). Between the two
there is little to do: lay the sections one after another, resolve the symbols, patch two kinds
of relocations, write the headers. Whatever else an object contains is refused.
"""

import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RODATA_ADDRESS = 0
CODE_ADDRESS = 1 << 32
# The first word stays empty, so that no object has the address 0, which is C's null.
RODATA_START = 8

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_INSTRUCTION = struct.Struct("<BBhi")
_IDENTITY = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_EXECUTABLE, _RELOCATABLE, _BPF, _SBPF_VERSION = 3, 1, 247, 3
_PROGBITS, _SYMTAB, _STRTAB, _NOBITS, _REL = 1, 2, 3, 8, 9
_ALLOCATED, _WRITABLE, _CODE = 2, 1, 4
_FUNCTION, _SECTION_SYMBOL = 2, 3
_UNDEFINED = 0
_R_BPF_64_64, _R_BPF_64_32 = 1, 10
_CALL, _LOAD_64 = 0x85, 0x18
_INTERNAL = 1


class LinkError(Exception):
    """An object that this linker cannot make a program of, with what was found in it."""


@dataclass(frozen=True)
class Section:
    """A section of an object: its name, header fields and bytes."""

    name: str
    kind: int
    flags: int
    link: int
    info: int
    alignment: int
    data: bytes


@dataclass(frozen=True)
class Symbol:
    """A symbol of an object: section 0 is a name defined elsewhere."""

    name: str
    kind: int
    is_global: bool
    section: int
    value: int


@dataclass(frozen=True)
class ObjectFile:
    """One relocatable object: sections and symbols by their index."""

    name: str
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    def loaded(self) -> Iterator[tuple[int, Section]]:
        """Yield the sections that become part of the program, with their index."""
        for index, section in enumerate(self.sections):
            if section.flags & _ALLOCATED and section.data:
                if section.flags & _WRITABLE or section.kind != _PROGBITS:
                    raise LinkError(
                        f"{self.name}: section {section.name} is writable or not plain data; "
                        "a program has no variables outside of its functions"
                    )
                yield index, section


def read_object(name: str, data: bytes) -> ObjectFile:
    """Read a relocatable ELF object.

    Parameters
    ----------
    name : str
        How errors call it.
    data : bytes
        The file.

    Raises
    ------
    LinkError
        Not a 64-bit little-endian BPF object.
    """
    if len(data) < _HEADER.size or data[:6] != _IDENTITY[:6]:
        raise LinkError(f"{name}: not a 64-bit little-endian ELF file")
    header = _HEADER.unpack_from(data)
    kind, machine, section_offset, section_count, names_index = (
        header[1],
        header[2],
        header[6],
        header[12],
        header[13],
    )
    if (kind, machine) != (_RELOCATABLE, _BPF):
        raise LinkError(f"{name}: ELF type {kind} for machine {machine}, not a BPF object")
    rows = [
        _SECTION.unpack_from(data, section_offset + i * _SECTION.size) for i in range(section_count)
    ]
    names = data[rows[names_index][4] :]
    sections = tuple(
        Section(
            name=_text(names, row[0]),
            kind=row[1],
            flags=row[2],
            link=row[6],
            info=row[7],
            alignment=max(row[8], 1),
            data=b"" if row[1] == _NOBITS and not row[5] else data[row[4] : row[4] + row[5]],
        )
        for row in rows
    )
    return ObjectFile(name, sections, tuple(_symbols(sections)))


def link(objects: Sequence[ObjectFile], entry: str = "entrypoint") -> bytes:
    """Return the executable that some objects make together.

    Parameters
    ----------
    objects : sequence of ObjectFile
        In the order in which they are laid out; the same order gives the same bytes.
    entry : str
        The function that the runtime calls.

    Raises
    ------
    LinkError
        A name defined twice, no entry point, or something in an object that a program cannot
        have.
    """
    layout = _Layout(objects)
    if entry not in layout.functions:
        raise LinkError(f"no object defines the function {entry}")
    for number, item in enumerate(objects):
        for section in item.sections:
            if section.kind == _REL and (number, section.info) in layout.places:
                for offset, info in _RELOCATION.iter_unpack(section.data):
                    layout.relocate(number, section.info, offset, info)
    return _executable(bytes(layout.code), bytes(layout.rodata), layout.functions, entry)


def murmur3(name: bytes) -> int:
    """Return the 32-bit MurmurHash3 of a name with seed 0: the number of a system call."""
    mask = 0xFFFFFFFF

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & mask

    def scramble(block: bytes) -> int:
        return rotate(int.from_bytes(block, "little") * 0xCC9E2D51 & mask, 15) * 0x1B873593 & mask

    result = 0
    whole = len(name) // 4 * 4
    for start in range(0, whole, 4):
        result = rotate(result ^ scramble(name[start : start + 4]), 13)
        result = (result * 5 + 0xE6546B64) & mask
    result ^= scramble(name[whole:]) ^ len(name)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        result = (result ^ result >> shift) * factor & mask
    return result ^ result >> 16


class _Layout:
    """Where each section and function came to stand, and the bytes so far."""

    def __init__(self, objects: Sequence[ObjectFile]) -> None:
        self.objects = objects
        self.code = bytearray()
        self.rodata = bytearray(RODATA_START)
        # (object, section) -> (is code, offset in code or rodata)
        self.places: dict[tuple[int, int], tuple[bool, int]] = {}
        self.functions: dict[str, int] = {}
        self._objects_by_name: dict[str, int] = {}
        for number, item in enumerate(objects):
            for index, section in item.loaded():
                is_code = bool(section.flags & _CODE)
                target = self.code if is_code else self.rodata
                target.extend(bytes(-len(target) % max(section.alignment, 8)))
                self.places[number, index] = (is_code, len(target))
                target.extend(section.data)
        self.rodata.extend(bytes(-len(self.rodata) % 8))
        for number, item in enumerate(objects):
            for symbol in item.symbols:
                if (number, symbol.section) in self.places and symbol.is_global:
                    self._define(number, symbol)

    def _define(self, number: int, symbol: Symbol) -> None:
        if symbol.name in self.functions or symbol.name in self._objects_by_name:
            raise LinkError(f"{self.objects[number].name}: {symbol.name} is defined twice")
        is_code, start = self.places[number, symbol.section]
        (self.functions if is_code else self._objects_by_name)[symbol.name] = start + symbol.value

    def relocate(self, number: int, section: int, offset: int, info: int) -> None:
        """Patch one instruction of one section."""
        is_code, start = self.places[number, section]
        kind, symbol = info & 0xFFFFFFFF, self.objects[number].symbols[info >> 32]
        name = self.objects[number].name
        if not is_code:
            raise LinkError(f"{name}: a pointer in read-only data; tables of pointers cannot load")
        at = start + offset
        opcode, registers, _, immediate = _INSTRUCTION.unpack_from(self.code, at)
        if kind == _R_BPF_64_32 and opcode == _CALL:
            self._call(number, symbol, at, immediate)
        elif kind == _R_BPF_64_64 and opcode == _LOAD_64:
            address = RODATA_ADDRESS + self._data(number, symbol) + immediate
            _INSTRUCTION.pack_into(self.code, at, opcode, registers, 0, address)
        else:
            raise LinkError(f"{name}: relocation {kind} of instruction 0x{opcode:02x} at {offset}")

    def _call(self, number: int, symbol: Symbol, at: int, immediate: int) -> None:
        """Make a call one of a function of ours, relative, or one of the system, by its hash."""
        place = self.places.get((number, symbol.section))
        if symbol.section == _UNDEFINED and symbol.name in self.functions:
            target = self.functions[symbol.name]
        elif symbol.section == _UNDEFINED:
            unsigned = murmur3(symbol.name.encode())
            signed = unsigned - (unsigned >> 31 << 32)
            _INSTRUCTION.pack_into(self.code, at, _CALL, 0, 0, signed)
            return
        elif place is not None and place[0]:
            # A section symbol carries the function's place in the instruction itself.
            addend = (immediate + 1) * 8 if symbol.kind == _SECTION_SYMBOL else 0
            target = place[1] + symbol.value + addend
        else:
            raise LinkError(f"{self.objects[number].name}: a call into data ({symbol.name})")
        distance = (target - at) // 8 - 1
        _INSTRUCTION.pack_into(self.code, at, _CALL, _INTERNAL << 4, 0, distance)

    def _data(self, number: int, symbol: Symbol) -> int:
        """Return where in the read-only data a symbol stands."""
        if symbol.section == _UNDEFINED and symbol.name in self._objects_by_name:
            return self._objects_by_name[symbol.name]
        place = self.places.get((number, symbol.section))
        if place is None or place[0]:
            raise LinkError(
                f"{self.objects[number].name}: {symbol.name or 'a function'} is used as data"
            )
        return place[1] + symbol.value


def _executable(code: bytes, rodata: bytes, functions: dict[str, int], entry: str) -> bytes:
    """Return the ELF file: two segments, and a symbol table for whoever debugs."""
    start = _HEADER.size + 2 * _SEGMENT.size
    code_offset = start + len(rodata)
    ordered = sorted(functions.items(), key=lambda item: item[1])
    strings, symbols = bytearray(b"\0"), bytearray(_SYMBOL.size)
    for name, offset in ordered:
        address = CODE_ADDRESS + offset
        symbols += _SYMBOL.pack(len(strings), 1 << 4 | _FUNCTION, 0, 2, address, 0)
        strings += name.encode() + b"\0"
    section_names = b"\0.rodata\0.text\0.symtab\0.strtab\0.shstrtab\0"
    tail = bytearray()
    rows = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, _PROGBITS, _ALLOCATED, RODATA_ADDRESS, start, len(rodata), 0, 0, 8, 0),
        (9, _PROGBITS, _ALLOCATED | _CODE, CODE_ADDRESS, code_offset, len(code), 0, 0, 8, 0),
    ]
    tail_offset = code_offset + len(code)
    for name_offset, kind, data, link_to, entry_size in (
        (15, _SYMTAB, bytes(symbols), 4, _SYMBOL.size),
        (23, _STRTAB, bytes(strings), 0, 0),
        (31, _STRTAB, section_names, 0, 0),
    ):
        first_global = 1 if kind == _SYMTAB else 0
        offset = tail_offset + len(tail)
        rows.append(
            (name_offset, kind, 0, 0, offset, len(data), link_to, first_global, 8, entry_size)
        )
        tail += data + bytes(-len(data) % 8)
    header = _HEADER.pack(
        _IDENTITY, _EXECUTABLE, _BPF, 1, CODE_ADDRESS + functions[entry], _HEADER.size,
        tail_offset + len(tail), _SBPF_VERSION, _HEADER.size, _SEGMENT.size, 2,
        _SECTION.size, len(rows), len(rows) - 1,
    )  # fmt: skip
    segments = _segment(4, RODATA_ADDRESS, start, rodata) + _segment(
        1, CODE_ADDRESS, code_offset, code
    )
    table = b"".join(_SECTION.pack(*row) for row in rows)
    return header + segments + rodata + code + bytes(tail) + table


def _segment(flags: int, address: int, offset: int, data: bytes) -> bytes:
    return _SEGMENT.pack(1, flags, offset, address, address, len(data), len(data), 8)


def _symbols(sections: tuple[Section, ...]) -> Iterator[Symbol]:
    for section in sections:
        if section.kind == _SYMTAB:
            names = sections[section.link].data
            for name, info, _, index, value, _ in _SYMBOL.iter_unpack(section.data):
                yield Symbol(_text(names, name), info & 15, info >> 4 != 0, index, value)


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()


def main(arguments: Sequence[str]) -> int:
    """Link ``arguments[1:]`` into ``arguments[0]``."""
    if len(arguments) < 2:
        print("usage: link.py PROGRAM.so OBJECT.o...", file=sys.stderr)
        return 2
    try:
        program = link([read_object(path, Path(path).read_bytes()) for path in arguments[1:]])
    except LinkError as error:
        print(error, file=sys.stderr)
        return 1
    Path(arguments[0]).write_bytes(program)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
