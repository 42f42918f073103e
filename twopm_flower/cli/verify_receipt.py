"""``twopm verify --receipt``: check the receipt of a private prediction, step by step."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from twopm_flower.cli.output import plain, print_json, say, show_error
from twopm_flower.cli.verify_output import show_ending, show_step
from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.node.handed_over import RECEIPT, read_handed_over
from twopm_flower.node.runs import open_chain
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.verify.receipt import verify_receipt
from twopm_flower.verify.receipt_report import ReceiptReport
from twopm_flower.verify.receipt_subject import ModelArrays

_LEVELS = {
    "redone": "The answer was computed again.",
    "compared": "Request and response are the signed ones; the answer was not computed again.",
    "signed": "Signatures alone were checked.",
}


def verify_receipt_file(
    path: Path,
    *,
    model: Path | None,
    chain: Path | None,
    home: Path,
    offline: bool,
    redone: bool,
    json: bool,
) -> int:
    """Check a receipt file and the frames beside it; show the steps, return the exit status.

    Parameters
    ----------
    path : Path
        The receipt; the request and the response stand beside it, with the suffixes
        ``.request`` and ``.response``.
    model : Path or None
        A safetensors file, to compute the answer again with.
    chain : Path or None
        The ``chain.toml`` to believe; the home's own if None.
    home : Path
    offline : bool
        Ask no chain.
    redone : bool
        Whether it is a failure if the answer was not computed again.
    json : bool
        Print the report as JSON, and nothing else.

    Raises
    ------
    RecordError
        No receipt, or no model.
    ConfigError
        A file cannot be read.
    """
    file = read_handed_over(path, RECEIPT, ReceiptFile)
    arrays = None if model is None else _read_model(model)
    deployment = file.card.deployment
    reader, why = (None, "--offline") if offline else open_chain(home, deployment, chain)
    if not json:
        answered = file.receipt.statement
        say(f"[bold]receipt[/] {file.receipt_digest}")
        say(f"by {plain(file.receipt.node)}, rows: {answered.rows}, wei: {answered.price}\n")
    report = verify_receipt(
        file,
        _beside(path, ".request"),
        _beside(path, ".response"),
        chain=reader,
        arrays=arrays,
        progress=None if json else show_step,
    )
    too_weak = redone and report.level != "redone"
    status = report.exit_code or int(too_weak)
    if json:
        print_json({**report.to_json(), "receipt": str(path), "exit_code": status})
    else:
        _show_outcome(report, why)
    if too_weak and report.exit_code == 0:
        show_error("the answer was not computed again", "Give the model with --model.")
    return status


def _show_outcome(report: ReceiptReport, why_no_chain: str | None) -> None:
    success = f"[bold green]Every step holds.[/] {_LEVELS[report.level]}"
    show_ending(
        report.first_failure, success if report.anchored else None, report.notes, why_no_chain
    )
    if report.fault:
        say("[bold red]The service signed a wrong answer, and its signature proves it.[/]")


def _beside(path: Path, suffix: str) -> bytes | None:
    frame = path.with_suffix(suffix)
    try:
        return frame.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{frame} cannot be read: {error.strerror}") from error


def _read_model(path: Path) -> ModelArrays:
    hint = "Give the safetensors file that the service serves, or 'twopm model export' writes."
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"the model {path} cannot be read: {error.strerror}", hint=hint
        ) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise RecordError(f"{path} is no safetensors file: {error}", hint=hint) from error
