"""The interface file, the page that describes it and the C sources say the same."""

import re
from pathlib import Path

import pytest
from solana_machine import INTERFACE, PROGRAM, SIZES

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "contracts" / "solana" / "src"
PAGE = (ROOT / "docs" / "solana.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def enumerators(header: str) -> dict[str, int]:
    text = (SOURCES / header).read_text()
    return {name: int(value) for name, value in re.findall(r"^    ([A-Z_]+) = (\d+),", text, re.M)}


def test_the_errors_are_those_of_the_page_and_of_the_sources() -> None:
    page = {name: int(code) for code, name, _ in rows("Errors")}
    sources = {camel(name): code for name, code in enumerators("errors.h").items() if code}
    assert INTERFACE["errors"] == page == sources
    assert min(page.values()) >= 6000


def test_every_error_is_raised_somewhere() -> None:
    code = "".join(path.read_text() for path in SOURCES.glob("*.c"))
    assert [name for name in enumerators("errors.h") if not re.search(rf"\b{name}\b", code)] == []


def test_the_tags_are_those_of_the_page_and_of_the_sources() -> None:
    page = {name: int(tag) for tag, name, *_ in rows("Instructions")}
    held = {name: shape["tag"] for name, shape in INTERFACE["instructions"].items()}
    sources = {
        name.removeprefix("TAG_").lower(): tag
        for name, tag in enumerators("instructions.h").items()
    }
    assert page == held == sources
    page = {name: int(tag) for tag, name, *_ in rows("Events")}
    held = {name: shape["tag"] for name, shape in INTERFACE["events"].items()}
    sources = {camel(name): tag for name, tag in enumerators("event.h").items()}
    assert page == held == sources


def test_the_lengths_of_instructions_are_those_of_the_page() -> None:
    for _, name, _, length, accounts in rows("Instructions"):
        shape = INTERFACE["instructions"][name]
        if length.isdigit():
            size = 1 + sum(SIZES[of] for _, of in shape["fields"])
            assert size == int(length), name
        listed = [part for part in accounts.split(", ") if not part.startswith("then")]
        assert len(listed) == len(shape["accounts"]), name
        for text, (_, flags) in zip(listed, shape["accounts"], strict=True):
            written = re.search(r"`(s?w?)`$", text)
            assert (written[1] if written else "") == flags, (name, text)


def test_the_fields_of_accounts_follow_one_another() -> None:
    kinds = {
        name: (int(kind), int(length.split()[0])) for name, kind, length, *_ in rows("Accounts")
    }
    held = {name: (shape["kind"], shape["length"]) for name, shape in INTERFACE["accounts"].items()}
    assert kinds == held
    page = {name: cells for name, *_, cells in rows("Accounts")}
    for name, shape in INTERFACE["accounts"].items():
        end = 8
        for field, offset, of in shape["fields"]:
            assert offset >= end, (name, field)
            assert f"{offset}: {field}" in page[name]
            end = offset + SIZES.get(of, 0)
        assert shape["length"] - 8 < end <= shape["length"]


@pytest.mark.parametrize("name", ["states", "max_members", "max_reason_bytes", "max_signatures"])
def test_the_limits_are_those_of_the_sources(name: str) -> None:
    layout = (SOURCES / "layout.h").read_text()
    constants = {
        "max_members": "MAX_MEMBERS",
        "max_reason_bytes": "MAX_REASON",
        "max_signatures": "MAX_SIGNATURES",
    }
    if name == "states":
        for state, value in INTERFACE["states"].items():
            assert f"{state.upper()} = {value}" in layout
    else:
        assert f"{constants[name]} = {INTERFACE[name]}" in layout


def test_the_program_is_small_enough_to_deploy_cheaply() -> None:
    assert len(PROGRAM) < 40_000
