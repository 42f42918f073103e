"""Every backend that is registered, each on a local chain of its own, for one suite of tests.

What a test asks for by `stage`, `stranger` or `nodes` is made once for each chain, so tests
make tasks of their own and leave what they share as it is.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in (str(TESTS / "chain"), str(Path(__file__).parent)):
    if folder not in sys.path:
        sys.path.append(folder)

import pytest  # noqa: E402
from chain_stage import Stage  # noqa: E402
from local_chains import names, open_chain  # noqa: E402


def chosen(name):
    """The EVM's backend is tested in every run, and on anvil where everything is."""
    return pytest.param(name, marks=[pytest.mark.slow] if name == "anvil" else [])


@pytest.fixture(scope="session", params=[chosen(name) for name in names()])
def name(request):
    """A registered backend, or anvil under the EVM's."""
    return request.param


@pytest.fixture(scope="session")
def chain(name, tmp_path_factory):
    with open_chain(name, tmp_path_factory.mktemp(name)) as chain:
        yield chain


@pytest.fixture(scope="session")
def second_chain(name, tmp_path_factory):
    """Another chain of the same kind, which may be stopped and started."""
    with open_chain(name, tmp_path_factory.mktemp(f"second-{name}")) as chain:
        yield chain


@pytest.fixture(scope="session")
def stage(chain):
    return Stage(chain.connector(chain.local.signer))


@pytest.fixture(scope="session")
def nodes(stage):
    return stage.registered_nodes(3)


@pytest.fixture(scope="session")
def stranger(chain, stage, nodes):
    """Another account on the same chain, which knows the same nodes."""
    return Stage(chain.connector(chain.local.new_account()), stage.keys)


@pytest.fixture(scope="session")
def opened(stage, nodes):
    """An open task with a full roster, for what leaves it as it is."""
    return stage.open_task(nodes)


@pytest.fixture(scope="session")
def running(stage, nodes):
    """A running task with two of three rounds, for what leaves it as it is."""
    task_id = stage.running_task(nodes, rounds=3)
    stage.record(task_id, 1)
    stage.record(task_id, 2, attempt=2)
    return task_id


@pytest.fixture(scope="session")
def finished(stage, nodes):
    """A task that only lacks its end, for what leaves it as it is."""
    return stage.finished_rounds(nodes)


@pytest.fixture(scope="session")
def finalised(stage, nodes):
    """A task that ended with a model."""
    task_id = stage.finished_rounds(nodes, rounds=1)
    stage.finalise(task_id, nodes)
    return task_id


@pytest.fixture(scope="session")
def cancelled(stage, nodes):
    """A task that ended without one."""
    task_id = stage.running_task(nodes)
    stage.connector.cancel_task(task_id, "too few nodes")
    return task_id
