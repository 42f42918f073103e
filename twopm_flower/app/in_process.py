"""The showcase in one process: the same apps, mods and strategy, without Flower's transport."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from twopm_flower.app.client_app import app as client_app
from twopm_flower.app.server_app import main
from twopm_flower.federated import LocalGrid


def run_in_process(
    run_config: Mapping[str, Any], nodes: int, *, homes: Sequence[Path] | None = None
) -> None:
    """Train and close in this process, one node after the other.

    The coordinator's home is ``$TWOPM_HOME``. Without `homes` the nodes are simulated below
    it and enrol first; with them, they take part in the task ``$TWOPM_TASK``, which was
    created for the bundle digest of no app at all (``app_bundle_digest(None)``).

    Parameters
    ----------
    run_config : mapping
        See ``[tool.flwr.app.config]``.
    nodes : int
        How many nodes share the data.
    homes : sequence of Path, optional
        The nodes' homes, in the order of their partitions.
    """
    configs: list[dict[str, Any]] = [
        {"partition-id": index, "num-partitions": nodes} for index in range(nodes)
    ]
    for config, home in zip(configs, homes or (), strict=False):
        config["twopm-home"] = str(home)
    grid = LocalGrid(client_app, configs, run_config)
    context = Context(
        run_id=grid.run.run_id,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    main(grid, context)
