"""Before the first round: load a task that operators prepared, or make one in simulation."""

from typing import Any

from flwr.serverapp import Grid

from twopm_flower.chain.backends import deployment_of
from twopm_flower.config import Settings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.app_bundle import app_bundle_digest, running_app_folder
from twopm_flower.federated.ceremony import check_deal, key_id_of
from twopm_flower.federated.chain_access import open_connector
from twopm_flower.federated.exchange import Arrays
from twopm_flower.federated.excluded import local_digest, split
from twopm_flower.federated.home import TaskFolder
from twopm_flower.federated.prepared import PreparedRun, SimulationOptions
from twopm_flower.federated.run_store import RunStore
from twopm_flower.federated.simulation_setup import SimulationSetup
from twopm_flower.federated.task import TaskContext
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.statements import KeyDeal, Signed, signed_type


def prepare(
    grid: Grid,
    *,
    settings: Settings,
    task: str | None,
    initial: Arrays,
    rounds: int,
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
    options: SimulationOptions,
) -> PreparedRun:
    """Return a task that is ready to run.

    Raises
    ------
    ConfigError
        The named task was not prepared here, differs from what the app wants to run, or ran
        before: nodes open each of its rounds once.
    QuorumError
        In simulation: too few nodes enrol.
    """
    if task is not None:
        return _load(
            settings,
            task,
            initial=initial,
            rounds=rounds,
            train_config=train_config,
            evaluate_config=evaluate_config,
        )
    return SimulationSetup(grid, settings, options).run(
        initial=initial,
        rounds=rounds,
        train_config=train_config,
        evaluate_config=evaluate_config,
    )


def _load(
    settings: Settings,
    task_id: str,
    *,
    initial: Arrays,
    rounds: int,
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
) -> PreparedRun:
    folder = TaskFolder(settings.home / "tasks" / task_id)
    chain = settings.require_chain()
    deployment = deployment_of(chain)
    terms, roster = folder.terms, folder.roster
    runs = settings.home / "runs"
    _refuse_second_run(RunStore(runs / task_id), rounds)
    roster.check(task_id, terms.digest, deployment.domain)
    key_deal = _load_deal(folder, deployment)
    context = TaskContext(
        task_id=task_id,
        domain=deployment.domain,
        terms=terms,
        roster=roster,
        key_id=key_id_of(terms, key_deal),
    )
    federated, local = split(initial, terms.excluded)
    wanted = {
        "rounds": rounds,
        "train_config": train_config,
        "evaluate_config": evaluate_config,
        "initial_model": context.model_digest(federated),
        "initial_excluded": local_digest(local),
        "app_bundle": app_bundle_digest(running_app_folder()),
    }
    for name, value in wanted.items():
        if getattr(terms, name) != value:
            raise ConfigError(
                f"the app wants {name} {value}, task {task_id} was created with "
                f"{getattr(terms, name)}",
                hint="Create a task for this app: twopm task create.",
            )
    return PreparedRun(
        task=context,
        deployment=deployment,
        key_deal=key_deal,
        connector=open_connector(settings),
        run_config=terms.run_config,
        runs_folder=runs,
    )


def _refuse_second_run(store: RunStore, rounds: int) -> None:
    if not store.bundle_path.exists():
        return
    bundle = store.load_bundle()
    raise ConfigError(
        f"task {bundle.task_id} ran before: {len(bundle.rounds)} of its {rounds} rounds are in "
        f"{store.bundle_path}, and nodes train and open each round once",
        hint="Make a new task. To go on from the last model, a node runs 'twopm model export "
        "--out model.safetensors', and you 'twopm task create --initial-model "
        "model.safetensors'.",
    )


def _load_deal(folder: TaskFolder, deployment: Deployment) -> Signed[KeyDeal] | None:
    file = folder.path / "key-deal.json"
    if not file.exists():
        return None
    signed = signed_type(KeyDeal).from_bytes(file.read_bytes())
    check_deal(signed, task_id=folder.task_id, roster=folder.roster, deployment=deployment)
    return signed
