"""What the operating system says of a node's folder stays at the node."""

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "identity.key",
        "config.toml",
        "tasks/{task}/terms.json",
        "tasks/{task}/roster.json",
        "tasks/{task}/shared.key",
        "tasks/{task}/progress.json",
        "tasks/{task}/.lock",
        "tasks/{task}/model-0.safetensors",
        "tasks/{task}/update-1-1.npy",
    ],
)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_file_that_cannot_be_opened_is_refused_without_its_path(recorded, tmp_path, kind, name):
    moment = recorded.at(kind, 2).copy(tmp_path)
    file = moment.node.home.path / name.format(task=moment.node.task_id)
    file.unlink(missing_ok=True)
    file.mkdir()
    reply, _ = moment.show(moment.order, tmp_path / "shown")
    told = reply.error.reason if reply.has_error() else ""
    assert str(tmp_path) not in told
