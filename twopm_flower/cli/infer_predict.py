"""``twopm infer predict`` and ``receipts``: ask for private predictions, keep what proves them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import pandas as pd
import typer
from rich.table import Table

from twopm_flower.cli.output import Home, Json, console, home_of, plain, print_json, say, short
from twopm_flower.cli.rounds import as_json
from twopm_flower.datasets.student import MAX_FILE_BYTES
from twopm_flower.datasets.student_csv import parse_students
from twopm_flower.errors import ConfigError, DataError
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.inference.receipt_folder import kept_receipts
from twopm_flower.node.chain_file import open_any_reader, read_chain_file
from twopm_flower.records.inference import ReceiptFile

GRADES: Final = ("G1", "G2", "G3")
MOST_SHOWN: Final = 20
DEFAULT_URL: Final = "http://127.0.0.1:9443"
ANY_PRICE: Final = 2**53

Url = Annotated[str, typer.Option(help="The service's address.", envvar="TWOPM_INFERENCE_URL")]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", help="Certificates to trust.", show_default="the system's"),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow http:// to another machine.")]


def predict(  # noqa: PLR0917  # one parameter for each option
    csv: Annotated[Path, typer.Option(help="Students, as UCI publishes them; grades may lack.")],
    url: Url = DEFAULT_URL,
    out: Annotated[Path | None, typer.Option(help="Write the predictions to this CSV.")] = None,
    max_price: Annotated[
        int, typer.Option(min=0, help="The most that a request may cost, in wei.")
    ] = 0,
    service: Annotated[
        str | None, typer.Option(help="The account that has to sign.", show_default="any")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The task whose model has to answer (0x…).", show_default="any"),
    ] = None,
    chain: Annotated[
        Path | None,
        typer.Option(help="A chain.toml whose chain has to know the model.", show_default="none"),
    ] = None,
    ca: Ca = None,
    insecure: Insecure = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400, help="Seconds that an exchange may take.")
    ] = 30.0,
    retries: Annotated[int, typer.Option(min=0, max=100, help="Tries after the first.")] = 4,
    home: Home = None,
    json: Json = False,
) -> None:
    """Predict for students whom the service does not get to see."""
    students = read_students(csv)
    if out is not None and not out.absolute().parent.is_dir():
        # Before anything is asked, for what cannot be written may have been paid for.
        raise ConfigError(f"{out} cannot be written: there is no such folder")
    policy = ClientPolicy(
        max_price_wei=max_price,
        service=service,
        task_id=task,
        chain=None if chain is None else open_any_reader(read_chain_file(chain)),
        timeout_s=timeout,
        retries=retries,
    )
    folder = home_of(home)
    with PrivateInferenceClient(
        url, home=folder, policy=policy, ca_file=ca, insecure=insecure
    ) as client:
        card = client.card()
        predictions = client.predict(students)
    if out is not None:
        _write(predictions, out)
    if json:
        print_json(
            {
                "service": card.service,
                "task_id": card.task_id,
                "model_digest": card.model_digest,
                "predictions": as_json(predictions.rename_axis("row").reset_index()),
            }
        )
        return
    say(f"model {card.model_digest} of task {short(card.task_id)}, weights {card.weights}")
    console().print(_table(predictions))
    if len(predictions) > MOST_SHOWN:
        say(f"and {len(predictions) - MOST_SHOWN} more" + (": pass --out" if out is None else ""))
    kept = predictions["receipt"].nunique()
    say(f"[dim]{kept} receipt{'s' * (kept > 1)}: twopm infer receipts --fetch[/]")


def receipts(  # noqa: PLR0917  # one parameter for each option
    url: Url = DEFAULT_URL,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Ask the service which have been anchored.")
    ] = False,
    chain: Annotated[
        Path | None,
        typer.Option(help="With --fetch: a chain.toml to believe.", show_default="none"),
    ] = None,
    ca: Ca = None,
    insecure: Insecure = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the receipts of predictions, and pick up where they were anchored."""
    folder = home_of(home)
    if fetch:
        # A service may have raised its price since; nothing is bought here.
        policy = ClientPolicy(
            max_price_wei=ANY_PRICE,
            chain=None if chain is None else open_any_reader(read_chain_file(chain)),
        )
        with PrivateInferenceClient(
            url, home=folder, policy=policy, ca_file=ca, insecure=insecure
        ) as client:
            found = client.receipts()
    else:
        found = kept_receipts(folder).load()
    if json:
        print_json({"receipts": [_receipt_json(receipt, folder) for receipt in found]})
        return
    if not found:
        say("There are no receipts yet: twopm infer predict asks for predictions.")
        return
    console().print(_receipt_table(found))
    pending = sum(receipt.anchoring is None for receipt in found)
    if pending and not fetch:
        say(f"[dim]{pending} may have been anchored since: --fetch asks the service[/]")
    example = kept_receipts(folder).path_of(found[-1])
    say(f"[dim]check one: twopm verify --receipt {plain(example)}[/]")


def read_students(path: Path) -> pd.DataFrame:
    """Return the students of a file; grades that the model may not need can be missing.

    Raises
    ------
    DataError
        The file cannot be read, or does not follow the schema.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES} bytes", hint="Split it.")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return parse_students(data, str(path), may_lack=GRADES)


def _receipt_json(receipt: ReceiptFile, home: Path) -> dict[str, Any]:
    said = receipt.receipt.statement
    return {
        "receipt": receipt.receipt_digest,
        "file": str(kept_receipts(home).path_of(receipt)),
        "service": receipt.receipt.node,
        "task_id": said.task_id,
        "model_digest": said.model_digest,
        "rows": said.rows,
        "price_wei": said.price,
        "issued_at": said.issued_at,
        "anchoring": None if receipt.anchoring is None else receipt.anchoring.to_json(),
    }


def _receipt_table(receipts_: Sequence[ReceiptFile]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for name in ("receipt", "issued", "rows", "price", "service", "anchored"):
        table.add_column(name, justify="right" if name in {"rows", "price"} else "left")
    for receipt in receipts_:
        said = receipt.receipt.statement
        issued = datetime.fromtimestamp(said.issued_at, UTC)
        table.add_row(
            short(receipt.receipt_digest),
            f"{issued:%Y-%m-%d %H:%M:%S}",
            f"{said.rows}",
            f"{said.price} wei" if said.price else "free",
            short(receipt.receipt.node),
            "not yet" if receipt.anchoring is None else f"block {receipt.anchoring.block_number}",
        )
    return table


def _write(predictions: pd.DataFrame, out: Path) -> None:
    try:
        predictions.to_csv(out, index_label="row")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error


def _table(predictions: pd.DataFrame) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("row", justify="right")
    for name in predictions.columns:
        table.add_column(plain(name), justify="left" if name in {"class", "receipt"} else "right")
    for index, row in zip(
        predictions.index[:MOST_SHOWN], as_json(predictions.head(MOST_SHOWN)), strict=True
    ):
        cells = [_cell(name, value) for name, value in row.items()]
        table.add_row(plain(index), *cells)
    return table


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return short(value) if name == "receipt" else plain(value)
