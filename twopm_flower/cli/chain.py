"""``twopm chain``: the embedded chain, the contracts, and what is on record."""

import json as json_format
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from twopm_flower.chain.backends import backend
from twopm_flower.chain.devnet import Devnet, serve
from twopm_flower.cli.chain_events import show_stream
from twopm_flower.cli.output import (
    Home,
    Json,
    fields,
    home_of,
    plain,
    print_json,
    say,
    short,
    work_name,
)
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.errors import ChainUnavailable, ConfigError
from twopm_flower.node.chain_file import open_any_reader, read_chain_file, where_read
from twopm_flower.node.delivery import deliver as deliver_records
from twopm_flower.node.deploy import deploy_contracts
from twopm_flower.node.provision import configure_home
from twopm_flower.node.tasks import resolve_task

app = typer.Typer(no_args_is_help=True, help="The embedded chain, the contracts, the records.")

LOCAL_HOST = "127.0.0.1"

PasswordFile = Annotated[
    Path | None, typer.Option(help="The file whose first line opens an encrypted key (0600).")
]
Family = Annotated[str, typer.Option(help="The kind of chain: evm, solana, or ledger.")]
ChainFile = Annotated[
    Path | None, typer.Option("--chain", help="A chain.toml.", show_default="the home's own")
]


@app.command(epilog="Example: twopm chain devnet --folder chain --port 8545")
def devnet(
    folder: Annotated[Path, typer.Option(help="Where the chain is kept.")] = Path("chain"),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = LOCAL_HOST,
    port: Annotated[int, typer.Option(help="The port; 0 lets the system choose.")] = 8545,
    family: Family = "evm",
    json: Json = False,
) -> None:
    """Run a local chain until Ctrl-C. It is kept, and goes on where it stopped."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(shown: dict[str, Any]) -> None:
        shown["key"] = str((folder / "account.key").absolute())
        if json:
            typer.echo(json_format.dumps(shown))
        else:
            fields(shown)
            say("The chain is running; Ctrl-C ends it.")

    if family == "evm":
        serve(folder, host, port, ready=lambda url, node: tell(_told(url, node)), stop=stop)
        return
    if host != LOCAL_HOST:
        raise ConfigError(
            f"a local {family} chain listens on {LOCAL_HOST} only, not on {host}",
            hint="For a ledger that others reach, docs/ledger.md has the command."
            if family == "ledger"
            else "Others need a real cluster: docs/chains.md.",
        )
    with backend(family).local_chain(folder, port=port) as process:
        tell({"url": process.url, "chain_id": process.chain_id})
        while not stop.wait(0.5):
            if not process.is_running:
                raise ChainUnavailable(f"the {family} chain at {process.url} has ended")


@app.command(
    epilog="Example: twopm chain deploy --rpc http://127.0.0.1:8545 --key chain/account.key"
)
def deploy(  # noqa: PLR0917  # one parameter for each option
    rpc: Annotated[str, typer.Option(help="The chain's JSON-RPC endpoint.")],
    key: Annotated[Path, typer.Option(help="The key file of the account that pays (0600).")],
    out: Annotated[Path, typer.Option(help="Where the public file goes.")] = Path("chain.toml"),
    family: Family = "evm",
    program: Annotated[
        str | None, typer.Option(help="Solana: the address of our program.", show_default=False)
    ] = None,
    password_file: PasswordFile = None,
    devnet_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of the embedded chain, to read it when it does not run."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Deploy the contracts, write chain.toml, and make this home the coordinator's."""
    pinned = deploy_contracts(
        home_of(home),
        rpc,
        key,
        out,
        password_file=password_file,
        devnet_folder=devnet_folder,
        family=family,
        program=program,
    )
    named = ("family", "chain_id", "genesis_hash", "node_registry", "task_registry")
    shown = {**pinned.model_dump(include=set(named)), "file": str(out)}
    if json:
        print_json(shown)
        return
    fields({name.replace("_", " "): value for name, value in shown.items()})
    say(f"Hand {plain(out.name)} to every operator over a channel that they trust.")


@app.command(epilog="Example: twopm chain use chain.toml --key coordinator.key")
def use(
    file: Annotated[Path, typer.Argument(help="A chain.toml from somebody you trust.")],
    key: Annotated[
        Path | None, typer.Option(help="Key file of the account that coordinates.")
    ] = None,
    password_file: PasswordFile = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Pin a chain in this home."""
    chain = read_chain_file(file)
    if password_file is not None and key is None:
        raise typer.BadParameter("--password-file goes with --key")
    configure_home(home_of(home), chain, coordinator_key=key, password_file=password_file)
    if json:
        print_json(chain.model_dump(mode="json"))
    else:
        say(f"This home believes chain {chain.chain_id} and contract {plain(chain.task_registry)}.")


@app.command(epilog="Example: twopm chain status")
def status(chain: ChainFile = None, home: Home = None, json: Json = False) -> None:
    """Show whether the pinned chain answers and is the right one."""
    settings = _chain(home, chain)
    reader = open_any_reader(settings)
    shown = {
        "family": settings.family,
        "rpc_url": settings.rpc_url,
        "chain_id": settings.chain_id,
        "genesis_hash": settings.genesis_hash,
        **({"program": settings.program} if settings.program else {}),
        "node_registry": settings.node_registry,
        "task_registry": settings.task_registry,
        "head_block": (now := reader.status()).head_block,
        "final_block": now.final_block,
        "endpoint": where_read(settings, now.endpoint),
    }
    if json:
        print_json(shown)
        return
    fields({name.replace("_", " "): value for name, value in shown.items()})
    ours = {"evm": "contracts", "solana": "program"}.get(settings.family, "rules")
    say(f"[green]This is the pinned chain, with the {ours} of this version.[/]")


@app.command(epilog="Example: twopm chain deliver 0x3fa9")
def deliver(
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    chain: ChainFile = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Bring the records of a run that still wait to the chain, each exactly once."""
    done = deliver_records(home_of(home), task, chain_file=chain)
    if json:
        print_json(asdict(done))
    else:
        settling = f", {done.settling} not final yet" if done.settling else ""
        say(f"{done.delivered} delivered, {done.pending} still waiting{settling}")
    if done.pending:
        raise typer.Exit(1)


@app.command(epilog="Example: twopm chain events 0x3fa9")
def events(  # noqa: PLR0917  # one parameter for each option
    task: Annotated[str | None, typer.Argument(help="The task, or its first digits.")] = None,
    chain: ChainFile = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="All events as they happen, until Ctrl-C.")
    ] = False,
    first_block: Annotated[
        int | None, typer.Option("--from", help="All events from this block on.", min=0)
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(help="A file that keeps how far you read: all events since, each once."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List what the chain holds of a task: members, rounds, the final model.

    With --from, --cursor or --follow: all events in order, of all tasks or of the one named.
    """
    folder = home_of(home)
    whole = task is not None and len(task.removeprefix("0x")) == 64
    settings = _chain(home, chain)
    reader = open_any_reader(settings)
    if follow or first_block is not None or cursor is not None:
        show_stream(
            reader,
            task_id=task if task is None or whole else resolve_task(folder, task),
            cursor=cursor,
            first_block=first_block or 0,
            confirmations=settings.confirmations,
            follow=follow,
            as_json=json,
        )
        return
    task_id = task if task is not None and whole else resolve_task(folder, task)
    state, members = reader.task(task_id), reader.members(task_id)
    records, final = reader.round_records(task_id), reader.finalisation(task_id)
    if json:
        print_json(
            {
                "task": asdict(state),
                "members": [asdict(member) for member in members],
                "rounds": [asdict(record) for record in records],
                "finalisation": None if final is None else asdict(final),
            }
        )
        return
    fields({"task": task_id, "state": state.state, "coordinator": state.coordinator})
    for member in members:
        say(f"  joined    {member.node}  {member.samples} rows")
    work = work_name(settings.family)
    for record in records:
        cost = "" if work is None or record.gas_used is None else f"  {work} {record.gas_used:,}"
        say(
            f"  recorded  round {record.round}.{record.attempt}  block {record.block_number}  "
            f"manifest {short(record.manifest_digest)}{cost}"
        )
    if final is not None:
        say(f"  finalised block {final.block_number}  model {short(final.model_digest)}")


def _told(url: str, node: Devnet) -> dict[str, Any]:
    return {
        "url": url,
        "chain_id": node.chain_id,
        "genesis_hash": node.genesis_hash,
        "account": node.signer.address,
    }


def _chain(home: Path | None, file: Path | None) -> ChainSettings:
    if file is not None:
        return read_chain_file(file)
    return load_settings(home_of(home)).require_chain()
