"""Which arrays stay with a node, and what may become of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import ConfigError, ProtocolViolation
from twopm_flower.federated.excluded import (
    check_local,
    kept_values,
    local_digest,
    merged,
    split,
    split_initial,
)
from twopm_flower.records.digest import ZERO_DIGEST

STATISTICS = ("*.running_mean", "*.running_var", "*.num_batches_tracked")


def a_model():
    return {
        "conv.weight": np.ones((2, 1), np.float32),
        "norm.weight": np.ones(2, np.float32),
        "norm.running_mean": np.zeros(2, np.float32),
        "norm.running_var": np.ones(2, np.float32),
        "norm.num_batches_tracked": np.array(0, np.int64),
        "head.weight": np.ones((1, 2), np.float32),
    }


def test_patterns_name_arrays_as_file_names_are_named():
    federated, local = split(a_model(), STATISTICS)
    assert list(federated) == ["conv.weight", "norm.weight", "head.weight"]
    assert list(local) == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert list(split(a_model(), ("conv.weight",))[1]) == ["conv.weight"]
    assert list(split(a_model(), ("CONV.*", "weight", "head.weigh?"))[1]) == ["head.weight"]
    assert split(a_model(), ())[1] == {}


def test_the_app_gets_back_what_was_split():
    model = a_model()
    whole = merged(*split(model, STATISTICS))
    assert {name: a.tobytes() for name, a in whole.items()} == {
        name: a.tobytes() for name, a in model.items()
    }


def test_integers_are_an_error_unless_they_are_excluded():
    split_initial(a_model(), STATISTICS)
    with pytest.raises(ConfigError, match=r"'norm\.num_batches_tracked' of the initial model") as e:
        split_initial(a_model(), STATISTICS[:2])
    assert "exclude" in str(e.value.hint)


def test_a_pattern_that_matches_nothing_is_a_typing_error():
    with pytest.raises(ConfigError, match="running_men"):
        split_initial(a_model(), (*STATISTICS, "*.running_men"))


def test_something_has_to_be_left_to_train_together():
    with pytest.raises(ConfigError, match="exclude the whole model"):
        split_initial(a_model(), ("*",))


def test_the_digest_is_zero_without_excluded_arrays_and_independent_of_their_order():
    _, local = split(a_model(), STATISTICS)
    assert local_digest({}) == ZERO_DIGEST
    backwards = dict(reversed(local.items()))
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in local.items()}
    fortran = {"w": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    assert local_digest(local) == local_digest(backwards) == local_digest(swapped)
    assert local_digest(fortran) == local_digest({"w": np.arange(6.0).reshape(2, 3)})


@given(st.sampled_from(["name", "value", "dtype", "shape", "more", "less"]))
def test_the_digest_changes_with_whatever_changes(what):
    local = {"a": np.zeros((2, 2), np.float32), "b": np.array(0, np.int64)}
    before = local_digest(local)
    match what:
        case "name":
            local["c"] = local.pop("b")
        case "value":
            local["b"] = np.array(1, np.int64)
        case "dtype":
            local["b"] = np.array(0, np.uint64)
        case "shape":
            local["a"] = local["a"].reshape(4)
        case "more":
            local["c"] = np.zeros(0, np.float32)
        case "less":
            del local["a"]
    assert local_digest(local) != before


def test_a_server_that_sends_one_node_other_statistics_is_refused():
    _, local = split(a_model(), STATISTICS)
    agreed = local_digest(local)
    check_local(local, agreed)
    for change in (
        {"norm.running_mean": np.full(2, 100, np.float32)},
        {"norm.num_batches_tracked": np.array(5, np.int64)},
    ):
        with pytest.raises(ProtocolViolation, match="digest"):
            check_local({**local, **change}, agreed)
    with pytest.raises(ProtocolViolation, match="digest"):
        check_local({}, agreed)


def test_what_the_app_returns_is_kept_and_what_it_leaves_out_stays():
    _, before = split(a_model(), STATISTICS)
    trained = {"norm.running_mean": np.full(2, 3, np.float32)}
    after = kept_values(trained, before)
    assert after["norm.running_mean"].tolist() == [3, 3]
    assert after["norm.running_var"].tolist() == [1, 1]
    assert before["norm.running_mean"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "trained",
    [
        {"norm.running_mean": np.zeros(3, np.float32)},
        {"norm.running_mean": np.zeros(2, np.float64)},
        {"other.running_mean": np.zeros(2, np.float32)},
    ],
)
def test_an_app_that_returns_other_arrays_than_it_was_given_is_told_so(trained):
    _, before = split(a_model(), STATISTICS)
    with pytest.raises(ConfigError, match="running_mean"):
        kept_values(trained, before)
