"""`twopm bench`: tables, JSON, pictures and what is refused before anything is measured."""

import json
import sys
from xml.etree import ElementTree

import pytest

from twopm_flower.bench.he_report import HeReport

SMALL = ("--sizes", "41", "--designs", "plaintext,bfv", "--repeats", "2", "--nodes", "3")
SVG = {"svg": "http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    from twopm_flower.cli import run

    folder = tmp_path_factory.mktemp("measured")
    files = ["--out", str(folder / "he.json"), "--plot", str(folder / "he.svg")]
    assert run(["bench", "he", *SMALL, *files, "--json", "--home", str(folder)]) == 0
    return folder


def test_the_file_holds_the_report(measured):
    report = HeReport.from_json((measured / "he.json").read_text())
    assert [m.design for m in report.measurements] == ["plaintext", "bfv"]
    assert report.nodes == 3


def test_the_table_fits_80_columns_and_tells_what_was_left_out(twopm, tmp_path):
    outcome = twopm(
        "bench", "he", "--sizes", "41", "--designs", "bfv,nvflare,plaintext", "--repeats", "1",
        "--nodes", "2", "--home", tmp_path,
    )  # fmt: skip
    assert outcome.status == 0
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "…" not in outcome.out
    assert "bfv, 41" in outcome.out
    assert "not measured NVFlare HE: NVFlare 2.9.0" in outcome.out
    assert "twopm bench peers --install" in outcome.out


def test_json_is_all_that_is_printed_where_it_is_asked_for(twopm, tmp_path):
    outcome = twopm("bench", "he", *SMALL, "--json", "--home", tmp_path)
    report = HeReport.model_validate(json.loads(outcome.out))
    assert len(report.ratios) == 1
    assert outcome.err == ""


def test_a_picture_describes_itself_and_follows_dark_mode(measured):
    text = (measured / "he.svg").read_text()
    svg = ElementTree.fromstring(text)
    labelled = svg.attrib["aria-labelledby"].split()
    for tag in ("title", "desc"):
        element = svg.find(f"svg:{tag}", SVG)
        assert element.attrib["id"] in labelled
        assert element.text
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace(SVG["svg"], "")
    shown = [element.text for element in svg.iter(f"{{{SVG['svg']}}}text")]
    assert {"Upload of one node", "Encryption by one node", "plaintext", "bfv"} <= set(shown)


def test_the_same_report_gives_the_same_picture(measured, tmp_path):
    from twopm_flower.bench.he_plot import draw

    draw(HeReport.from_json((measured / "he.json").read_text()), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (measured / "he.svg").read_bytes()
    draw(HeReport.from_json((measured / "he.json").read_text()), tmp_path / "he.png")
    assert (tmp_path / "he.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--designs", "paillier"), "paillier"),
        (("--sizes", "many"), "many"),
        (("--plot", "he.gif"), "he.gif"),
    ],
)
def test_nothing_is_measured_for_what_cannot_be_done(twopm, tmp_path, wrong, told):
    outcome = twopm("bench", "he", *SMALL, *wrong, "--home", tmp_path)
    assert outcome.status == 1
    assert told in outcome.err


def test_a_plot_without_matplotlib_names_the_extra(twopm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = twopm("bench", "he", *SMALL, "--plot", tmp_path / "he.svg", "--home", tmp_path)
    assert outcome.status == 1
    assert "pip install 'twopm-flower[notebooks]'" in outcome.err


def test_peers_are_listed_with_the_command_that_installs_them(twopm, tmp_path):
    outcome = twopm("bench", "peers", "--home", tmp_path, "--json")
    (peer,) = outcome.json
    assert peer["peer"] == "nvflare"
    assert not peer["installed"]
    assert peer["python"].startswith(str(tmp_path))
    assert "twopm bench peers --install" in twopm("bench", "peers", "--home", tmp_path).out


def test_rounds_are_measured_and_written(twopm, tmp_path):
    file = tmp_path / "round.json"
    outcome = twopm(
        "bench", "round", "--rounds", "2", "--parameters", "1000", "--rows", "32", "--out", file
    )
    assert outcome.status == 0
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "plain Flower" in outcome.out
    assert len(json.loads(file.read_text())["encrypted"]) == 2


def test_a_module_in_the_working_folder_does_not_stand_in_for_a_design(
    twopm, tmp_path, monkeypatch
):
    (tmp_path / "json.py").write_text("raise SystemExit('run from the working folder')\n")
    monkeypatch.chdir(tmp_path)
    one = ("--sizes", "41", "--designs", "plaintext", "--repeats", "1", "--nodes", "2")
    assert twopm("bench", "he", *one, "--home", tmp_path).status == 0


def test_one_error_and_no_table_tell_that_nothing_could_be_measured(twopm, tmp_path):
    sizes = ("--sizes", "41,10000", "--designs", "nvflare", "--repeats", "1")
    outcome = twopm("bench", "he", *sizes, "--home", tmp_path)
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.count("is not installed") == 1
    assert "Error: nothing could be measured" in outcome.err
    assert "twopm bench peers --install" in outcome.err
    asked = twopm("bench", "he", *sizes, "--json", "--home", tmp_path)
    assert asked.status == 1
    assert asked.json["measurements"] == []
