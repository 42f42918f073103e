"""``twopm signer prepare``, ``sign`` and ``submit``: signing on a machine without network.

``sign`` imports nothing that speaks with a network; the other two import what they need when
they run.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twopm_flower.cli.output import Home, Json, Yes, confirm, fields, home_of, print_json, say
from twopm_flower.cli.signer_policy import address_of, our_functions, typed_statement
from twopm_flower.errors import ConfigError
from twopm_flower.records.fields import checksum_address
from twopm_flower.signer.calls import Function
from twopm_flower.signer.carried import (
    SignedRequest,
    SigningRequest,
    explain,
    prepare,
    read_carried,
    sign_request,
    write_carried,
)
from twopm_flower.signer.judge import Judge
from twopm_flower.signer.policy import load_policy
from twopm_flower.signer.station import open_station
from twopm_flower.signer.transaction import Transaction

if TYPE_CHECKING:
    from twopm_flower.config import ChainSettings

ChainFile = Annotated[
    Path | None, typer.Option("--chain", help="A chain.toml.", show_default="the home's own")
]


def prepare_(  # noqa: PLR0917  # one parameter for each option
    what: Annotated[
        str,
        typer.Argument(
            help="A function of our contracts (start, cancel, recordRound, ...), a signature "
            "such as 'start(bytes32)', or a statement (Registration, Membership, ...)."
        ),
    ],
    account: Annotated[str, typer.Option("--from", help="The address that has to sign.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(help="Arguments in order; of a statement NAME=VALUE."),
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="Which contract, where several have the function.")
    ] = None,
    nonce: Annotated[
        int | None, typer.Option(help="The transaction's nonce.", show_default="the next one")
    ] = None,
    hours: Annotated[float, typer.Option(help="How long it may be signed and submitted.")] = 24.0,
    out: Annotated[Path, typer.Option(help="Where the file goes.")] = Path("request.json"),
    chain: ChainFile = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Write a file with what is to be signed on a machine without network."""
    from twopm_flower.cli.signer_chain import call_on_chain  # noqa: PLC0415

    pinned, given = chain_of(chain, home), values or []
    signer = checksum_address(account)
    if what[:1].isupper() and "(" not in what:
        data = typed_statement(pinned, what, _assignments(given))
        content: Any = data
        words = f"{data.explain()} on chain {pinned.chain_id}"
    else:
        name, address, function = _function(pinned, what, contract)
        encoded = function.encode(parse_arguments(function, given))
        content = call_on_chain(pinned, signer, function.name, address, encoded, nonce=nonce)
        words = f"{name}.{function.explain(encoded)} on chain {pinned.chain_id}"
    now = datetime.now(UTC)
    request = prepare(content, signer, words, now=now, valid=timedelta(hours=hours))
    write_carried(out, request)
    _show(request, out, json)
    if not json:
        say(f"Carry it to the key, and run there: twopm signer sign {out} --key ... --policy ...")


def sign(  # noqa: PLR0917  # one parameter for each option
    request: Annotated[Path, typer.Argument(help="The file from 'twopm signer prepare'.")],
    key: Annotated[Path, typer.Option(help="The key file (0600).")],
    policy: Annotated[Path, typer.Option(help="What may be signed.")],
    password_file: Annotated[
        Path | None, typer.Option(help="The file whose first line opens an encrypted key (0600).")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="Where it is written down.", show_default="KEY.audit.jsonl")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Remembers nonces, rates, fees.", show_default="KEY.signer.sqlite"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the result goes.", show_default="FILE.signed")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Sign a carried file by the policy. Needs no network, and uses none."""
    asked = read_carried(request, SigningRequest, "twopm signer prepare")
    rules = load_policy(policy)
    service, close = open_station(
        key,
        rules,
        password_file=password_file,
        audit=audit,
        state=state,
        tell=lambda _line: None,
    )
    try:
        words = explain(asked, Judge(rules, service.account), now=datetime.now(UTC))
        if not json:
            fields({"account": service.account, "does": words, "expires": asked.expires_at})
        confirm("Sign this?", yes=yes)
        signed = sign_request(asked, service, now=datetime.now(UTC))
    finally:
        close()
    file = out or Path(f"{request}.signed")
    write_carried(file, signed)
    if json:
        print_json({"account": asked.account, "words": words, "file": str(file)})
    else:
        say(f"Signed. Carry it back, and run there: twopm signer submit {file}")


def submit(
    signed: Annotated[list[Path], typer.Argument(help="Files from 'twopm signer sign'.")],
    join_request: Annotated[
        Path | None,
        typer.Option(
            help="Write a signed Registration and Membership here for 'twopm task admit'."
        ),
    ] = None,
    chain: ChainFile = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check what came back, and bring it to the chain: statements by the coordinator's account."""
    from twopm_flower.cli import signer_chain  # noqa: PLC0415

    pinned = chain_of(chain, home)
    files = [read_carried(file, SignedRequest, "twopm signer sign") for file in signed]
    now = datetime.now(UTC)
    contents = [file.check(now=now) for file in files]
    done: list[dict[str, object]] = []
    if join_request is not None:
        signer_chain.write_join_request(join_request, files, pinned)
        done.append({"request": str(join_request)})
    else:
        for file, content in zip(files, contents, strict=True):
            if isinstance(content, Transaction):
                done.append(signer_chain.send(pinned, content, file))
            else:
                done.append(signer_chain.relay(home_of(home), pinned, content, file))
    if json:
        print_json(done)
        return
    for shown in done:
        fields({name.replace("_", " "): value for name, value in shown.items()})
    if join_request is not None:
        say("Hand it to the coordinator, who runs 'twopm task admit'.")


def chain_of(file: Path | None, home: Path | None) -> "ChainSettings":
    """Return the chain of a file, or else of a home."""
    from twopm_flower.config import load_settings  # noqa: PLC0415
    from twopm_flower.node.chain_file import read_chain_file  # noqa: PLC0415

    if file is not None:
        return read_chain_file(file)
    return load_settings(home_of(home)).require_chain()


def parse_arguments(function: Function, texts: list[str]) -> list[Any]:
    """Return arguments of a function from a command line; lists and tuples are JSON.

    Raises
    ------
    ConfigError
        Too few, too many, or not what the type takes.
    """
    import json as json_format  # noqa: PLC0415

    if len(texts) != len(function.parameters):
        raise ConfigError(
            f"{function.text} takes {len(function.parameters)} arguments, not {len(texts)}",
            hint="Give them in this order; a list or a tuple as JSON.",
        )
    found = []
    for parameter, text in zip(function.parameters, texts, strict=True):
        try:
            nested = parameter.kind.endswith("]") or parameter.kind.startswith("(")
            found.append(_argument(parameter.kind, json_format.loads(text) if nested else text))
        except ValueError as error:
            raise ConfigError(
                f"{text[:80]!r} is no {parameter.kind} for {parameter.name or function.name}"
            ) from error
    return found


def _argument(kind: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_argument("", element) for element in value]
    if kind.startswith(("uint", "int")):
        return int(value)
    if kind == "bool":
        return {"true": True, "false": False}[value]
    if isinstance(value, str) and value.startswith("0x") and kind != "string" and len(value) != 42:
        return bytes.fromhex(value[2:])
    return value


def _function(chain: "ChainSettings", what: str, contract: str | None) -> tuple[str, str, Function]:
    wanted = Function.parse(what).signature if "(" in what else None
    plain = what.replace("-", "").lower()
    found = [
        (name, address_of(chain, name), function)
        for name, functions in our_functions().items()
        for function in functions
        if contract in (None, name)
        and (function.signature == wanted if wanted else function.name.lower() == plain)
    ]
    if len(found) != 1:
        known = sorted({f.name for functions in our_functions().values() for f in functions})
        raise ConfigError(
            f"{len(found)} functions of our contracts are called {what!r}",
            hint=f"There are {', '.join(known)}; --contract names one of several.",
        )
    return found[0]


def _assignments(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    wrong = [name for name, equals, _ in pairs if not equals]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is not NAME=VALUE", hint="As in: node=0x... nonce=0")
    return {name: value for name, _, value in pairs}


def _show(request: SigningRequest, file: Path, as_json: bool) -> None:
    shown = {
        "account": request.account,
        "does": request.words,
        "expires": request.expires_at,
        "hash": request.signing_hash,
        "file": str(file),
    }
    if as_json:
        print_json(shown)
    else:
        fields(shown)
