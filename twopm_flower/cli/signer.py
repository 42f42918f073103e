"""``twopm signer``: a process that alone holds a key, its policy and its audit log."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from twopm_flower.cli.output import Json, fields, print_json
from twopm_flower.errors import ConfigError
from twopm_flower.signer.ed25519 import create_solana_key_file
from twopm_flower.signer.keystore import create_key_file

app = typer.Typer(no_args_is_help=True, help="Sign in a process of its own, by a policy.")


class Kind(StrEnum):
    """Kinds of keys."""

    SECP256K1 = "secp256k1"
    ED25519 = "ed25519"


@app.command("create-key", epilog="Example: twopm signer create-key --out coordinator.key")
def create_key(
    out: Annotated[Path, typer.Option(help="Where the key goes (0600).")],
    kind: Annotated[
        Kind, typer.Option(help="secp256k1 for EVM chains and ledgers, ed25519 for Solana.")
    ] = Kind.SECP256K1,
    password_file: Annotated[
        Path | None, typer.Option(help="Encrypt the key with this file's first line (0600).")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key for an account that coordinates. A key is never overwritten."""
    if kind is Kind.SECP256K1:
        account = create_key_file(out, password_file=password_file).address
    elif password_file is None:
        account = create_solana_key_file(out).public_key.hex()
    else:
        raise ConfigError("an ed25519 key file is not encrypted", hint="Omit --password-file.")
    shown = {"account": account, "kind": kind.value, "key": str(out)}
    if json:
        print_json(shown)
    else:
        fields(shown)
