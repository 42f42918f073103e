"""From a coordinator's home to a service: which model, whose keys, what its workers are told."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.chain_access import open_connector
from twopm_flower.inference.anchoring import Anchorer
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.inference.requester_key import inference_folder
from twopm_flower.inference.served_model import Offer, ServedModel
from twopm_flower.inference.service import Limits
from twopm_flower.inference.worker import Plan
from twopm_flower.node.chain_file import read_chain_file
from twopm_flower.node.runs import load_run
from twopm_flower.privacy.linear_parameters import WeightsPolicy
from twopm_flower.privacy.secret_files import read_secret_file, write_secret_file
from twopm_flower.records.inference import QueryBudget
from twopm_flower.signer.keystore import LocalSigner, create_key_file

KEY_FILE: Final = "service.key"
MASK_KEY_FILE: Final = "mask.key"
STORE_FILE: Final = "receipts.sqlite"
MASK_KEY_BYTES: Final = 32
MOST_MODEL_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True)
class ServiceChoices:
    """What an operator chooses.

    Attributes
    ----------
    run : str or None
        The task, its first digits, or a bundle; the latest run of the home, if None.
    model : Path
        The model's safetensors, from ``twopm model export``.
    chain : Path or None
        A chain.toml; the home's own chain, if None.
    weights : {"public", "secret"}
    price_wei : int
    query_budget : QueryBudget or None
    max_rows : int
    allowed : tuple of str or None
        The requesters that are answered; everybody, if None. Needed where weights are secret.
    anchor_every_s : float
    tls_certificate, tls_key : Path or None
    limits : Limits
    """

    run: str | None
    model: Path
    chain: Path | None
    weights: WeightsPolicy
    price_wei: int
    query_budget: QueryBudget | None
    max_rows: int
    allowed: tuple[str, ...] | None
    anchor_every_s: float
    tls_certificate: Path | None
    tls_key: Path | None
    limits: Limits

    def __post_init__(self) -> None:
        if self.weights == "secret" and self.allowed is None:
            raise ConfigError(
                "secret weights need a list of requesters: a new key would have a new budget",
                hint="Name the addresses that are answered in a file: --allow requesters.txt.",
            )


@dataclass(frozen=True)
class OpenedService:
    """A model that may be served, and what serves it.

    Attributes
    ----------
    model : ServedModel
    plan : Plan
        What its workers are told.
    store : ReceiptStore
    anchorer : Anchorer
        Not started.
    """

    model: ServedModel
    plan: Plan
    store: ReceiptStore
    anchorer: Anchorer


def open_service(home: Path, choices: ServiceChoices) -> OpenedService:
    """Check a model against its chain, and open what a service of it needs.

    Parameters
    ----------
    home : Path
        Of a coordinator: its account pays for anchoring. The key that signs receipts is made
        there, below ``inference``, if there is none.
    choices : ServiceChoices

    Raises
    ------
    ConfigError
        No such run or file, or the model is not the outcome of its task.
    ChainError
        The chain does not answer.
    """
    bundle = load_run(home, choices.run).bundle
    settings = load_settings(home)
    chain = None if choices.chain is None else read_chain_file(choices.chain)
    connector = open_connector(settings, chain)
    if connector.deployment() != bundle.deployment:
        raise ConfigError(
            f"the run of task {bundle.task_id} is anchored on another chain than this home's",
            hint="Pass --chain chain.toml of the run.",
        )
    folder = inference_folder(home)
    signer = _service_signer(folder / KEY_FILE)
    offer = Offer(
        weights=choices.weights,
        service=signer.address,
        issuer=connector.account,
        price_wei=choices.price_wei,
        query_budget=choices.query_budget,
        max_rows=choices.max_rows,
    )
    data = _read_model(choices.model)
    model = ServedModel.of(
        bundle.terms,
        bundle.task_id,
        bundle.deployment,
        chain=connector,
        arrays=_arrays(data, choices),
        offer=offer,
    )
    # Workers read it again when they are replaced, whatever became of the file by then.
    kept = folder / f"{model.card.model_digest}.safetensors"
    if not kept.exists():
        write_secret_file(kept, data)
    mask_key = None if choices.weights == "public" else _mask_key(folder / MASK_KEY_FILE)
    store_file = folder / STORE_FILE
    plan = Plan(
        card=model.card.to_bytes().decode(),
        model=kept,
        store=store_file,
        service_key=folder / KEY_FILE,
        mask_key=mask_key,
        allowed=choices.allowed,
        tls_certificate=choices.tls_certificate,
        tls_key=choices.tls_key,
        limits=choices.limits,
    )
    store = ReceiptStore(store_file)
    anchorer = Anchorer(store, connector, offer.issuer, every_s=choices.anchor_every_s)
    return OpenedService(model, plan, store, anchorer)


def _service_signer(file: Path) -> LocalSigner:
    return LocalSigner.from_file(file) if file.exists() else create_key_file(file)


def _mask_key(file: Path) -> Path:
    if not file.exists():
        write_secret_file(file, secrets.token_bytes(MASK_KEY_BYTES))
    if len(read_secret_file(file)) != MASK_KEY_BYTES:
        raise ConfigError(f"{file} is not a key of {MASK_KEY_BYTES} bytes")
    return file


def _read_model(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_MODEL_BYTES:
            raise ConfigError(f"{path} is larger than any model that can be served")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the model {path} cannot be read: {error.strerror}",
            hint="'twopm model export --out model.safetensors' in a node's home writes it.",
        ) from error


def _arrays(data: bytes, choices: ServiceChoices) -> dict[str, npt.NDArray[Any]]:
    try:
        return load(data)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{choices.model} is no safetensors file: {error}") from error
