"""``twopm signer``: a process that alone holds a key, its policy and its audit log."""

import json as json_format
import logging
import signal
import sys
import threading
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from twopm_flower.cli import signer_offline
from twopm_flower.cli.output import Json, fields, print_json, say
from twopm_flower.cli.signer_policy import FeeLimits, Role, make_policy
from twopm_flower.errors import ConfigError
from twopm_flower.signer.audit import check_audit
from twopm_flower.signer.ed25519 import create_solana_key_file
from twopm_flower.signer.keystore import create_key_file
from twopm_flower.signer.policy import load_policy
from twopm_flower.signer.state import read_head
from twopm_flower.signer.station import audit_beside, open_station

app = typer.Typer(no_args_is_help=True, help="Sign in a process of its own, by a policy.")

GWEI, ETHER = 10**9, 10**18

KeyFile = Annotated[Path, typer.Option("--key", help="The key file (0600).")]
PasswordFile = Annotated[
    Path | None, typer.Option(help="The file whose first line opens an encrypted key (0600).")
]
PolicyFile = Annotated[Path, typer.Option("--policy", help="What may be signed.")]
AuditFile = Annotated[
    Path | None, typer.Option(help="Where it is written down.", show_default="KEY.audit.jsonl")
]
StateFile = Annotated[
    Path | None,
    typer.Option(help="Remembers nonces, rates and fees.", show_default="KEY.signer.sqlite"),
]


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
    from twopm_flower.signer.solana_message import base58  # noqa: PLC0415

    if kind is Kind.SECP256K1:
        account = create_key_file(out, password_file=password_file).address
    elif password_file is None:
        account = base58(create_solana_key_file(out).public_key)
    else:
        raise ConfigError("an ed25519 key file is not encrypted", hint="Omit --password-file.")
    shown = {"account": account, "kind": kind.value, "key": str(out)}
    if json:
        print_json(shown)
    else:
        fields(shown)


@app.command(epilog="Example: twopm signer policy --for chain.toml --out policy.toml")
def policy(  # noqa: PLR0917  # one parameter for each option
    chain: Annotated[Path, typer.Option("--for", help="The chain.toml of the contracts.")],
    role: Annotated[Role, typer.Option(help="Whose key it is.")] = Role.COORDINATOR,
    account: Annotated[
        str | None, typer.Option(help="Solana: the account that pays, in base 58.")
    ] = None,
    max_fee_per_gas: Annotated[float, typer.Option(help="In gwei.")] = 200.0,
    max_gas: Annotated[int, typer.Option(help="Of one transaction.")] = 3_000_000,
    max_fee_per_day: Annotated[float, typer.Option(help="In ether.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Where it goes.")] = Path("policy.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
    json: Json = False,
) -> None:
    """Write the policy that allows what a role needs on a chain, and nothing else."""
    from twopm_flower.federated.home import write_atomically  # noqa: PLC0415
    from twopm_flower.node.chain_file import read_chain_file  # noqa: PLC0415

    if out.exists() and not force:
        raise ConfigError(f"{out} exists already", hint="Add --force, or name another --out.")
    fees = FeeLimits(round(max_fee_per_gas * GWEI), max_gas, round(max_fee_per_day * ETHER))
    pinned = read_chain_file(chain)
    made = make_policy(pinned, role, fees, account=account)
    values = made.model_dump(mode="json", exclude_none=True)
    write_atomically(out, tomli_w.dumps(values).encode())
    out.chmod(0o644)
    if json:
        print_json({**values, "file": str(out)})
        return
    fields(
        {
            "policy": out,
            "for": f"a {role.value} on chain {pinned.chain_id} ({pinned.family})",
            "functions": sum(len(rule.functions) for rule in made.contracts),
            "statements": sum(len(rule.types) for rule in made.typed_data),
        }
    )
    say("Read it before you use it: it is all that the key will ever sign.")


@app.command(
    epilog="Example: twopm signer serve --socket signer.sock --key coordinator.key "
    "--policy policy.toml"
)
def serve(  # noqa: PLR0917  # one parameter for each option
    key: KeyFile,
    policy_file: PolicyFile,
    socket: Annotated[Path | None, typer.Option(help="Listen on a unix socket (0600).")] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT; listen there with mutual TLS.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="This side's certificate; PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key; PEM (0600).")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Clients show a certificate signed by this one; PEM.")
    ] = None,
    allow_uid: Annotated[
        list[int] | None,
        typer.Option(help="A user's number that may ask over the socket, too; repeat."),
    ] = None,
    password_file: PasswordFile = None,
    audit: AuditFile = None,
    state: StateFile = None,
    json: Json = False,
) -> None:
    """Hold a key, and sign what the policy allows, until Ctrl-C."""
    from twopm_flower.signer.server import TlsServer, UnixServer  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    _leave_no_core_file()
    service, close = open_station(
        key,
        load_policy(policy_file),
        password_file=password_file,
        audit=audit,
        state=state,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    try:
        server: TlsServer | UnixServer
        if socket is not None and listen is None:
            server = UnixServer(service, socket, uids=allow_uid or ())
            where = f"unix://{socket.absolute()}"
        elif listen is not None and socket is None:
            if tls_cert is None or tls_key is None or tls_client_ca is None:
                raise ConfigError(
                    "--listen needs --tls-cert, --tls-key and --tls-client-ca",
                    hint="Nobody without a certificate may ask; docs/signer.md shows how.",
                )
            host, _, port = listen.rpartition(":")
            if not host or not port.isdigit() or int(port) > 65535:
                raise ConfigError(f"{listen!r} is not HOST:PORT")
            server = TlsServer(
                service,
                host.strip("[]"),
                int(port),
                certificate=tls_cert,
                key=tls_key,
                client_authority=tls_client_ca,
            )
            where = f"https://{host}:{server.port}"
        else:
            raise ConfigError("name either --socket or --listen")
        with server:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
            service.started()
            shown = {
                "account": service.account,
                "url": where,
                "policy": str(policy_file),
                "audit log": str(audit or audit_beside(key)),
            }
            if json:
                typer.echo(json_format.dumps(shown))
            else:
                fields(shown)
                say("The signer is running; Ctrl-C ends it.")
            sys.stdout.flush()
            server.serve_forever(poll_interval=0.1)
    finally:
        close()


@app.command(epilog="Example: twopm signer certificates --host signer.example --out tls")
def certificates(
    host: Annotated[
        list[str], typer.Option(help="A name or address of the signer's machine; repeat.")
    ],
    days: Annotated[int, typer.Option(help="How long they are valid.", min=1)] = 365,
    out: Annotated[Path, typer.Option(help="The folder.")] = Path("tls"),
    json: Json = False,
) -> None:
    """Make the certificates with which a signer and who asks it know each other."""
    from twopm_flower.signer.certificates import create_certificates  # noqa: PLC0415

    create_certificates(out, tuple(host), days=days)
    shown = {"signer": str(out / "signer.pem"), "client": str(out / "client.pem")}
    if json:
        print_json(shown | {"authority": str(out / "ca.pem")})
        return
    fields(shown)
    say("Move signer.* to the signer and client.* to the coordinator, with ca.pem to both.")


@app.command("audit", epilog="Example: twopm signer audit coordinator.key.audit.jsonl")
def audit_(
    file: Annotated[Path, typer.Argument(help="The log.")],
    state: Annotated[
        Path | None,
        typer.Option(
            help="The signer's state, which knows how long the log is.",
            show_default="the one beside it",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check that no entry of an audit log was changed, removed or cut off."""
    beside = Path(str(file).removesuffix(".audit.jsonl") + ".signer.sqlite")
    if state is None and str(file).endswith(".audit.jsonl") and beside.exists():
        state = beside
    found = check_audit(file, None if state is None else read_head(state))
    shown = {
        "entries": found.head.count,
        "signed": found.signed,
        "refused": found.refused,
        "from": found.first_at or "-",
        "to": found.last_at or "-",
        "head": found.head.digest,
        "compared_with": None if state is None else str(state),
    }
    if json:
        print_json(shown)
        return
    fields({k.replace("_", " "): "-" if v is None else v for k, v in shown.items()})
    say("[green]Every entry follows from the one before.[/]")
    if state is None:
        say("Whether entries are missing at the end, only the signer's --state can tell.")


def _leave_no_core_file() -> None:
    # A crash would otherwise write the key to disk.
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


app.command(
    "prepare", epilog="Example: twopm signer prepare start 0x3fa9... --from 0x62D9... --out f.json"
)(signer_offline.prepare_)
app.command(
    "sign", epilog="Example: twopm signer sign f.json --key coordinator.key --policy policy.toml"
)(signer_offline.sign)
app.command("submit", epilog="Example: twopm signer submit f.json.signed")(signer_offline.submit)
