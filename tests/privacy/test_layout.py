"""Flattening is exact, and anything that does not fit the layout is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy_factories import METRICS, a_layout

from twopm_flower.errors import HeadroomError, LayoutError
from twopm_flower.privacy.layout import Layout, Metric


def arrays_of(layout, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in layout.arrays}


@given(
    st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4),
    st.sampled_from([np.float32, np.float64]),
)
def test_unflatten_undoes_flatten_bit_for_bit(shapes, dtype):
    layout = Layout(tuple((f"a{i}", tuple(shape)) for i, shape in enumerate(shapes)))
    arrays = arrays_of(layout, dtype=dtype)
    back = layout.unflatten(layout.flatten(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].shape == array.shape
        assert np.array_equal(back[name], array.astype(np.float64))


def test_values_stand_in_the_layouts_order_whatever_the_order_of_the_mapping():
    layout = Layout((("b", (2,)), ("a", (2, 2))))
    arrays = {"a": np.array([[3.0, 4.0], [5.0, 6.0]]), "b": np.array([1.0, 2.0])}
    assert layout.flatten(arrays).tolist() == [1, 2, 3, 4, 5, 6]
    fortran = {**arrays, "a": np.asfortranarray(arrays["a"])}
    assert layout.flatten(fortran).tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_array_and_index(bad):
    layout = a_layout()
    arrays = arrays_of(layout)
    arrays["weight"][0, 7] = bad
    with pytest.raises(HeadroomError, match=r"'weight' has .* at index \(0, 7\)"):
        layout.flatten(arrays)


def test_missing_unknown_misshapen_and_integer_arrays_are_refused():
    layout = a_layout()
    arrays = arrays_of(layout)
    for change, message in (
        ({"weight": np.zeros((40, 1))}, "agreed was"),
        ({"weight": np.zeros((1, 40), np.int64)}, "int64"),
        ({"weight": np.zeros((1, 40), np.float16)}, "float16"),
        ({"surprise": np.zeros(1)}, "surprise"),
    ):
        with pytest.raises(LayoutError, match=message):
            layout.flatten({**arrays, **change})
    with pytest.raises(LayoutError, match=r"missing \['bias'\]"):
        layout.flatten({"weight": arrays["weight"]})


def test_a_vector_of_another_length_does_not_fill_the_arrays():
    with pytest.raises(LayoutError, match="does not fill"):
        a_layout(41).unflatten(np.zeros(40))


def test_metrics_are_rounded_to_their_scale_in_the_layouts_order():
    layout = a_layout()
    values = layout.quantise_metrics({"loss": 1.2346, "correct": 17}, limit=10**6)
    assert values.tolist() == [17, 1235]


@pytest.mark.parametrize("value", [-0.001, 100.001, np.nan, np.inf])
def test_a_metric_outside_its_declared_range_is_refused(value):
    with pytest.raises(HeadroomError, match="'loss'"):
        a_layout().quantise_metrics({"loss": value, "correct": 1}, limit=10**6)


def test_a_metric_that_could_outgrow_its_field_is_refused_whatever_its_value():
    layout = a_layout()
    layout.check_headroom(100_000)
    with pytest.raises(HeadroomError, match="'loss' can reach 100000"):
        layout.quantise_metrics({"loss": 0.0, "correct": 0}, limit=99_999)


def test_undeclared_and_missing_metrics_are_refused():
    for metrics in ({"loss": 1.0}, {"loss": 1.0, "correct": 1, "label": 3}):
        with pytest.raises(LayoutError, match="metrics differ"):
            a_layout().quantise_metrics(metrics, limit=10**6)


def test_the_digest_tells_layouts_apart_and_survives_json():
    layouts = [
        a_layout(41),
        a_layout(42),
        a_layout(41, ()),
        a_layout(41, (METRICS[1], METRICS[0])),
        a_layout(41, (METRICS[0], Metric("loss", 1000, 101.0))),
        a_layout(41, (METRICS[0], Metric("loss", 1001, 100.0))),
        Layout((("bias", (1,)), ("weight", (1, 40))), METRICS),
        Layout((("weight", (40, 1)), ("bias", (1,))), METRICS),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)
    for layout in layouts:
        again = Layout.from_dict(layout.to_dict())
        assert again == layout
        assert again.digest == layout.digest


def test_a_layout_is_read_strictly():
    good = a_layout().to_dict()
    bad = [{}, {**good, "more": 1}, {"arrays": 3, "metrics": []}, {**good, "metrics": [{}]}]
    bad.append({**good, "arrays": [{"name": "w", "shape": [2.0]}]})
    bad.append({**good, "arrays": [{"name": "w", "shape": [2], "dtype": "float32"}]})
    bad.append({**good, "arrays": [{"name": 3, "shape": [2]}]})
    for data in bad:
        with pytest.raises(LayoutError):
            Layout.from_dict(data)


@pytest.mark.parametrize(
    ("arrays", "metrics"),
    [
        ((), ()),
        ((("w", (0,)), ("b", (1,))), ()),
        ((("w", (-1,)),), ()),
        ((("w", (True,)),), ()),
        ((("w", (1,)), ("w", (2,))), ()),
        ((("", (1,)),), ()),
        ((("w", (1,)),), (Metric("m", 0, 1.0),)),
        ((("w", (1,)),), (Metric("m", 1, float("inf")),)),
        ((("w", (1,)),), (Metric("m", 1, 0.0),)),
        ((("w", (1,)),), (Metric("m", 1, 1.0), Metric("m", 2, 1.0))),
        ((("w", (1 << 16, 1 << 16)),), ()),
    ],
)
def test_layouts_that_make_no_sense_cannot_be_made(arrays, metrics):
    with pytest.raises(LayoutError):
        Layout(arrays, metrics)


def test_a_layout_is_taken_from_arrays():
    layout = Layout.of({"w": np.zeros((2, 3)), "b": np.zeros(())}, METRICS)
    assert layout.arrays == (("w", (2, 3)), ("b", ()))
    assert (layout.array_size, layout.size) == (7, 9)
