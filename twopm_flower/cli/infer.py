"""``twopm infer``: serve private predictions, ask for them, keep what proves them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from eth_utils.address import is_checksum_address

from twopm_flower.cli.infer_predict import predict, receipts
from twopm_flower.cli.output import Home, Json, fields, home_of, print_json, say, short
from twopm_flower.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True, help="Predict on inputs that stay encrypted, with signed receipts."
)
app.command(
    epilog="Example: twopm infer predict --csv students.csv --url https://predict.example:9443"
)(predict)
app.command(epilog="Example: twopm infer receipts --fetch --url https://predict.example:9443")(
    receipts
)

PERIODS_S: Final = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}


class Weights(StrEnum):
    """Whether anybody may know the weights."""

    PUBLIC = "public"
    SECRET = "secret"  # noqa: S105 - no password


@app.command(epilog="Example: twopm infer serve --model model.safetensors --port 9443")
def serve(  # noqa: PLR0917  # one parameter for each option
    run: Annotated[
        str | None,
        typer.Argument(help="The task, its first digits, or a bundle; else the latest run here."),
    ] = None,
    model: Annotated[
        Path, typer.Option(help="The model, from 'twopm model export' in a node's home.")
    ] = Path("model.safetensors"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9443,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 2,
    weights: Annotated[
        Weights, typer.Option(help="Secret ones are masked in every answer.")
    ] = Weights.PUBLIC,
    query_budget: Annotated[
        str | None,
        typer.Option(help="Rows for each requester, such as 1000/day.", show_default="no limit"),
    ] = None,
    price: Annotated[int, typer.Option(min=0, help="Of one request, in wei.")] = 0,
    max_rows: Annotated[int, typer.Option(min=1, max=1 << 20, help="Of one request.")] = 4096,
    allow: Annotated[
        Path | None,
        typer.Option(
            help="A file with the addresses to answer; secret weights need one.",
            show_default="everybody",
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve others without TLS.")] = False,
    anchor_every: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds between batches of receipts.")
    ] = 60.0,
    in_flight: Annotated[
        int, typer.Option(min=1, max=10_000, help="Requests at once in a worker.")
    ] = 64,
    chain: Annotated[
        Path | None, typer.Option(help="A chain.toml.", show_default="the home's own")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve the model of a finished task to whoever asks with encrypted inputs.

    The home is a coordinator's: its account pays for anchoring receipts.
    """
    _check_transport(host, tls_cert, tls_key, insecure=insecure)
    # Importing what computes takes a second.
    from twopm_flower.inference.service import Limits  # noqa: PLC0415
    from twopm_flower.inference.serving import Serving, listen  # noqa: PLC0415
    from twopm_flower.node.prediction_service import (  # noqa: PLC0415
        ServiceChoices,
        open_service,
    )
    from twopm_flower.records.inference import QueryBudget  # noqa: PLC0415

    budget = None if query_budget is None else _budget(query_budget)
    choices = ServiceChoices(
        run=run,
        model=model,
        chain=chain,
        weights=weights.value,
        price_wei=price,
        query_budget=None if budget is None else QueryBudget(rows=budget[0], period_s=budget[1]),
        max_rows=max_rows,
        allowed=None if allow is None else _addresses(allow),
        anchor_every_s=anchor_every,
        tls_certificate=None if tls_cert is None else tls_cert.absolute(),
        tls_key=None if tls_key is None else tls_key.absolute(),
        limits=Limits(in_flight=in_flight),
    )
    opened = open_service(home_of(home), choices)
    listening = listen(host, port)
    with (
        opened.anchorer,
        Serving(listening, opened.plan, workers) as serving,
        # Before anybody is told that it serves, and so may tell it to end.
        _ended_by_signals(serving.stop),
    ):
        scheme = "http" if tls_cert is None else "https"
        where, bound = serving.address
        url = f"{scheme}://{f'[{where}]' if ':' in where else where}:{bound}"
        card = opened.model.card
        shown = {
            "url": url,
            "model": card.model_digest,
            "task": card.task_id,
            "weights": card.weights,
            "signs as": card.service,
            "anchors as": card.issuer,
            "budget": query_budget or "no limit",
        }
        if json:
            print_json({**shown, "pid": os.getpid(), "workers": serving.pids})
        else:
            fields({**shown, "model": short(card.model_digest), "task": short(card.task_id)})
            say("Serving; Ctrl-C ends it after what has begun.")
        serving.run()
    left = opened.store.unanchored()
    opened.store.close()
    if not json:
        say("Every receipt is anchored." if not left else f"{left} receipts wait to be anchored.")
    if left:
        say("The next 'twopm infer serve' of this home anchors them.")


def _check_transport(
    host: str, certificate: Path | None, key: Path | None, *, insecure: bool
) -> None:
    if (certificate is None) != (key is None):
        raise ConfigError("a certificate and its key belong together: --tls-cert and --tls-key")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise ConfigError(f"there is no file {file}")
    if certificate is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"without TLS whoever listens on the way to {host} sees who asks for predictions",
            hint="Pass --tls-cert and --tls-key, or --insecure if something else encrypts.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _budget(text: str) -> tuple[int, int]:
    rows, _, period = text.partition("/")
    if not (rows.isascii() and rows.isdigit() and 0 < int(rows[:16]) < 2**53):
        raise ConfigError(
            f"{text!r} is no budget: it has no number of rows", hint="Such as 1000/day."
        )
    if period not in PERIODS_S:
        raise ConfigError(
            f"{text!r} is no budget: {period!r} is no period",
            hint=f"Choose one of {', '.join(PERIODS_S)}: 1000/day.",
        )
    return int(rows), PERIODS_S[period]


def _addresses(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    found = [line.split("#")[0].strip() for line in lines]
    addresses = tuple(line for line in found if line)
    for address in addresses:
        if not is_checksum_address(address):
            raise ConfigError(f"{path}: {address[:80]!r} is no address in EIP-55 form")
    return addresses


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    def told(_number: int, _frame: FrameType | None) -> None:
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
