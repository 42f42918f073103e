import pytest

from twopm_flower.errors import ChainUnavailable, ConfigError
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.lifetime import Lifetime


class Recorder(Lifetime):
    def __init__(self, *, fails=None):
        self.steps = []
        self.fails = fails

    def start(self):
        self.steps.append("start")
        if self.fails is not None:
            raise self.fails
        return self

    def stop(self):
        self.steps.append("stop")


def test_what_a_block_started_is_stopped_when_it_ends_and_when_it_fails():
    recorder = Recorder()
    with recorder as started:
        assert started is recorder
        recorder.steps.append("work")
    with pytest.raises(KeyError), recorder:
        raise KeyError
    assert recorder.steps == ["start", "work", "stop", "start", "stop"]


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
def test_what_was_started_is_stopped_when_starting_fails_or_is_interrupted(error):
    recorder = Recorder(fails=error)
    with pytest.raises(type(error)), recorder:
        raise AssertionError("the block must not be entered")
    assert recorder.steps == ["start", "stop"]


def test_a_federation_that_cannot_be_set_up_leaves_no_chain_running(tmp_path):
    (tmp_path / "alice").write_text("in the way")
    federation = LocalFederation(tmp_path, 2)
    with pytest.raises(ConfigError, match="cannot be made"), federation:
        raise AssertionError("the block must not be entered")
    with pytest.raises(ChainUnavailable):
        federation.reader().check()
