"""`twopm bench he` as a library: figures that fit together, and what happens when they cannot."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiet import Quiet

from twopm_flower.bench import he, ours, ours_one_time, plain, tenseal_tutorial
from twopm_flower.bench.he import HeOptions, run_he
from twopm_flower.bench.he_report import HeReport
from twopm_flower.bench.peers import NVFLARE
from twopm_flower.bench.process import DesignProcess
from twopm_flower.bench.standalone import updates, worker
from twopm_flower.errors import BenchmarkError, ConfigError
from twopm_flower.privacy.backend import backend_names
from twopm_flower.privacy.frame import AGGREGATE_HEADER_BYTES, UPDATE_HEADER_BYTES
from twopm_flower.privacy.parameters import AdditiveParameters

pytestmark = pytest.mark.slow

NODES = 4
USER_HOME = Path.home() / ".twopm"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> HeReport:
    options = HeOptions(sizes=(41,), designs=("plaintext", "bfv"), repeats=2, nodes=NODES)
    return run_he(options, tmp_path_factory.mktemp("home"), Quiet())


def figures(report: HeReport, design: str, size: int = 41):
    (found,) = [m for m in report.measurements if (m.design, m.size) == (design, size)]
    return found


def test_the_mean_of_an_encrypted_sum_is_within_the_promised_error(report: HeReport) -> None:
    bfv = figures(report, "bfv")
    assert bfv.error_bound is not None
    assert 0 < bfv.error <= bfv.error_bound < 1e-5
    assert figures(report, "plaintext").error < 1e-6


def test_the_bytes_are_those_of_the_frames(report: HeReport) -> None:
    parameters = AdditiveParameters.derive("bfv", NODES)
    coefficients, rows = parameters.coefficients(41), parameters.rows(41)
    bfv, plaintext = figures(report, "bfv"), figures(report, "plaintext")
    assert bfv.upload_bytes == UPDATE_HEADER_BYTES + 64 * rows + 7 * coefficients
    assert bfv.download_bytes == AGGREGATE_HEADER_BYTES + 7 * coefficients + 7 * 2048 * rows
    assert plaintext.upload_bytes == plaintext.download_bytes == 4 * 41
    assert bfv.upload_factor == bfv.upload_bytes / 164


def test_every_repeat_is_kept_and_the_ratios_are_those_of_the_medians(report: HeReport) -> None:
    bfv, plaintext = figures(report, "bfv"), figures(report, "plaintext")
    for found in (bfv, plaintext):
        for seconds in (found.encrypt_s, found.add_s, found.decrypt_s):
            assert len(seconds) == 2
            assert min(seconds) > 0
    (ratio,) = report.ratios
    assert (ratio.design, ratio.peer, ratio.size) == ("bfv", "plaintext", 41)
    assert ratio.upload == plaintext.upload_bytes / bfv.upload_bytes
    assert ratio.decrypt == statistics.median(plaintext.decrypt_s) / statistics.median(
        bfv.decrypt_s
    )


def test_a_report_is_the_same_after_a_way_through_json(report: HeReport) -> None:
    text = report.to_json()
    assert HeReport.from_json(text) == report
    assert '"format": "twopm-flower/bench-he/v1"' in text
    assert report.machine.cores >= 1
    assert report.machine.cpu
    assert "numpy" in report.machine.packages


DESIGNS = [
    ("plaintext", plain),
    ("tutorial", tenseal_tutorial),
    *(
        (name, ours_one_time if name == "one-time-key" else ours)
        for name in backend_names()
        if name != "plaintext"
    ),
]


@pytest.mark.parametrize(("name", "module"), DESIGNS)
@pytest.mark.parametrize("size", [41, 5000])
def test_every_design_opens_the_weighted_mean_of_the_same_updates(name, module, size) -> None:
    design = module.open_design(name, size, NODES)
    for _ in range(2):  # a second round owes nothing to the first
        design.start()
        for node in range(NODES):
            design.add(node, design.encrypt(node, updates.update(size, node, 1)))
        found = design.open(design.finish())
        exact = updates.mean(size, NODES, 1)
        assert found.keys() == exact.keys()
        error = max(np.abs(np.ravel(found[n]) - exact[n]).max() for n in exact)
        assert error <= (design.error_bound() or 1e-6)
    assert (design.shares() is None) == (name != "one-time-key")


@given(size=st.integers(2, 20_000_000))
def test_the_arrays_of_a_model_add_up_to_its_size(size: int) -> None:
    layers = updates.layers(size)
    assert sum(layers.values()) == size
    assert min(layers.values()) >= 1
    assert len(layers) == (2 if size < 1000 else 4 if size < 100_000 else 8)


def test_updates_are_the_same_in_every_process_and_differ_from_node_to_node() -> None:
    first, again, other = (updates.update(41, node, 1) for node in (0, 0, 1))
    for name, array in first.items():
        assert array.dtype == np.float32
        assert np.abs(array).max() <= updates.CLIP
        np.testing.assert_array_equal(array, again[name])
        assert not np.array_equal(array, other[name])


def test_what_a_design_writes_to_stdout_does_not_garble_its_answers(tmp_path: Path) -> None:
    with DesignProcess("tutorial", tmp_path) as process:
        # TenSEAL warns on stdout where a vector fills more than one ciphertext.
        process.ask("prepare", size=10_000, nodes=2, seed=1)
        assert process.ask("round")["upload_bytes"] > 1_000_000


def test_a_design_that_fails_says_why_and_goes_on(tmp_path: Path) -> None:
    with DesignProcess("plaintext", tmp_path) as process:
        with pytest.raises(BenchmarkError, match="nothing to do"):
            process.ask("nonsense")
        assert process.ask("prepare", size=41, nodes=2, seed=1)["layers"]["weight"] == 40


def test_a_process_that_dies_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(he.MODULES, "plaintext", "no_such_module")
    options = HeOptions(sizes=(41,), designs=("plaintext", "bfv"), repeats=1, nodes=2)
    found = run_he(options, tmp_path, Quiet())
    (skip,) = found.skipped
    assert (skip.design, skip.size) == ("plaintext", 41)
    assert "no_such_module" in skip.reason
    assert [m.design for m in found.measurements] == ["bfv"]


def test_a_size_that_would_not_fit_into_memory_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(he, "free_memory", lambda: 1)
    options = HeOptions(sizes=(300_000, 600_000), designs=("plaintext",), repeats=1, nodes=2)
    found = run_he(options, tmp_path, Quiet())
    assert [m.size for m in found.measurements] == [300_000]
    (skip,) = found.skipped
    assert (skip.design, skip.size) == ("plaintext", 600_000)
    assert "memory" in skip.reason


def test_a_peer_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path,
) -> None:
    options = HeOptions(sizes=(41,), designs=("nvflare", "plaintext"), repeats=1, nodes=2)
    found = run_he(options, tmp_path, Quiet())
    (skip,) = found.skipped
    assert skip.design == "nvflare"
    assert "twopm bench peers --install" in (skip.hint or "")
    assert [m.design for m in found.measurements] == ["plaintext"]


def test_progress_never_goes_back_and_ends_before_its_end(tmp_path: Path) -> None:
    quiet = Quiet()
    run_he(HeOptions(sizes=(41,), designs=("plaintext",), repeats=3, nodes=2), tmp_path, quiet)
    steps = [done for _, done, _ in quiet.told]
    assert steps == list(range(len(steps)))
    assert all(of == len(steps) for _, _, of in quiet.told)


@pytest.mark.parametrize(
    "wrong",
    [
        {"designs": ("paillier",)},
        {"designs": ()},
        {"sizes": (1,)},
        {"sizes": ()},
        {"repeats": 0},
        {"nodes": 1},
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(wrong) -> None:
    with pytest.raises(ConfigError):
        HeOptions(**wrong)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_memory_is_measured_at_its_highest_even_if_it_is_given_back() -> None:
    with worker.peak_memory() as peak:
        held = np.ones(50_000_000, np.uint8)
        assert held[-1]
        del held
    assert 49_000_000 <= peak.extra < 80_000_000


@pytest.mark.slow
@pytest.mark.skipif(
    not NVFLARE.installed(USER_HOME),
    reason=f"NVFlare is not installed in {USER_HOME}/bench: twopm bench peers --install",
)
@pytest.mark.parametrize("size", [41, 10_000])
def test_nvflares_own_code_opens_the_weighted_mean(size: int) -> None:
    options = HeOptions(sizes=(size,), designs=("nvflare", "bfv"), repeats=2, nodes=3)
    found = run_he(options, USER_HOME, Quiet())
    assert found.skipped == ()
    nvflare, bfv = (figures(found, name, size) for name in ("nvflare", "bfv"))
    assert nvflare.error < 1e-6
    # A ciphertext of degree 8192 with two moduli, and a context, for every array.
    assert nvflare.upload_bytes > nvflare.arrays * 500_000
    (ratio,) = found.ratios
    assert ratio.peer == "nvflare"
    assert ratio.upload == nvflare.upload_bytes / bfv.upload_bytes


@pytest.mark.slow
def test_ten_million_parameters_encrypt_within_half_a_gigabyte(tmp_path: Path) -> None:
    designs = tuple(name for name in backend_names() if name != "plaintext")
    options = HeOptions(sizes=(10_000_000,), designs=designs, repeats=1, nodes=2)
    found = run_he(options, tmp_path, Quiet())
    assert found.skipped == ()
    for measured in found.measurements:
        assert measured.encrypt_peak_bytes < 500_000_000
        assert measured.error <= (measured.error_bound or 0)
