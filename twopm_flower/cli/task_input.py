"""What people type for a task: read, and refused before anything is shown or put on chain."""

from pathlib import Path
from typing import Any

import typer

from twopm_flower.errors import ConfigError, DataError
from twopm_flower.node.local_data import DataSource


def assignments(items: list[str]) -> dict[str, Any]:
    """Return the values that NAME=VALUE arguments spell."""
    values: dict[str, Any] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator:
            raise typer.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="--run-config")
        values[name.strip()] = _value(text.strip())
    return values


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text.strip("'\""))


def refuse_to_overwrite(*files: Path) -> None:
    """Stop where a file of an earlier task would be lost.

    Raises
    ------
    ConfigError
        One of the files exists.
    """
    for file in files:
        if file.exists():
            raise ConfigError(
                f"{file} exists, from an earlier task",
                hint="Choose another folder, such as --out second/invitation.json, or --force.",
            )


def refuse_idle_colluders(colluders: object, trust_mode: str) -> None:
    """Stop where a number of colluders was asked for that the trust mode cannot tolerate.

    Raises
    ------
    ConfigError
        Colluders were named, and the trust mode is not ``one-time-key``.
    """
    if colluders and trust_mode != "one-time-key":
        raise ConfigError(
            f"--colluders {colluders}: with {trust_mode} no node may collude with the server",
            hint="Add --trust-mode one-time-key, or leave --colluders out.",
        )


def check_source(source: DataSource) -> None:
    """Stop where it is plain, without the terms, that a node's rows cannot be found.

    Raises
    ------
    DataError
        The file or folder does not exist.
    ConfigError
        There is no such partition.
    """
    if source.path is not None and not source.path.exists():
        raise DataError(f"there is no {source.path}", hint="Pass a file, or a folder, as --data.")
    part, parts = source.partition, source.partitions
    if part is None and parts is None:
        return
    if part is None or parts is None:
        raise ConfigError("--partition and --partitions belong together")
    if not 0 <= part < parts:
        raise ConfigError(
            f"there is no partition {part} of {parts}",
            hint=f"They count from 0: the last is {parts - 1}." if parts > 0 else None,
        )
