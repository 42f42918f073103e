"""Text of other parties on the reader's terminal: it is shown, and nothing obeys it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from twopm_flower.cli.demo_report import render
from twopm_flower.cli.demo_story import DemoOptions, DemoResult
from twopm_flower.cli.output import console, plain, print_json, show_error
from twopm_flower.federated.home import NodeHome
from twopm_flower.inspect import load_bundle, plot_rounds
from twopm_flower.node.runs import load_run
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.manifest import Exclusion
from twopm_flower.verify.checklist import verify_bundle

HOSTILE = "x\x1b[32m[/sorry][bold]\x9b8m\u202e\nEvery step holds.\r :warning: $\\frac$"
STEERING = set("\x00\x07\x08\x0b\x0c\r\x1b\x7f\x85\x9b\u200f\u2028\u202e\u2066\ud800")


def is_harmless(text):
    return not STEERING & set(text) and "\nEvery step holds." not in text


@pytest.fixture
def hostile_bundle(finished, tmp_path):
    """A run whose title, data label and reason for an exclusion attack the terminal."""
    value = json.loads(finished.bundle.read_bytes())
    value["terms"]["title"] = HOSTILE
    value["terms"]["dataset"]["label"] = HOSTILE
    manifest = value["rounds"][0]["manifest"]
    gone = manifest["survivors"].pop()["node"]
    exclusion = Exclusion(node=gone, reason="error", detail=HOSTILE)
    manifest["exclusions"].append(exclusion.to_json())
    file = tmp_path / "hostile.json"
    file.write_bytes(canonical_bytes(value))
    return file


@pytest.mark.parametrize("command", [("verify",), ("rounds",), ("show", 1)])
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_hostile_bundle_is_shown_and_steers_nothing(
    twopm, hostile_bundle, tmp_path, command, more
):
    outcome = twopm(*command, hostile_bundle, "--home", tmp_path / "home", *more)
    assert outcome.status in {0, 1}
    assert is_harmless(outcome.out + outcome.err)
    if more:
        assert outcome.json
    elif command[0] != "verify":
        assert "[/sorry][bold]" in outcome.out
        assert ":warning:" in outcome.out


def test_a_formula_in_a_title_breaks_no_plot(hostile_bundle, tmp_path):
    bundle = load_bundle(hostile_bundle)
    title = r"grades $\frac$"
    terms = bundle.terms.model_copy(update={"title": title})
    figure = plot_rounds(bundle.model_copy(update={"terms": terms}))
    figure.savefig(tmp_path / "plot.png")
    assert title in figure.get_suptitle()


@pytest.fixture
def hostile_task(finished, tmp_path):
    """A node's home whose task has a hostile title and which stopped for a hostile reason."""
    import shutil

    home = tmp_path / "node"
    shutil.copytree(finished.homes[1], home)
    folder = NodeHome(home).task(finished.task_id)
    terms = folder.terms.model_copy(
        update={"title": HOSTILE, "dataset": {**folder.terms.dataset, "label": HOSTILE}}
    )
    (folder.path / "terms.json").write_bytes(terms.to_bytes())
    folder.save_progress(folder.load_progress().changed(halted=HOSTILE))
    return home


@pytest.mark.parametrize(
    "command", [("node", "status"), ("node", "resume", "--yes"), ("task", "list"), ("task", "show")]
)
def test_a_hostile_task_and_reason_are_shown_and_steer_nothing(twopm, hostile_task, command):
    outcome = twopm(*command, "--home", hostile_task)
    assert "[/sorry][bold]" in outcome.out
    assert is_harmless(outcome.out + outcome.err)


def test_a_card_with_a_hostile_name_is_shown_pinned_and_forgotten(twopm, finished, tmp_path):
    chain = tmp_path / "chain.toml"
    text = (finished.homes[0] / "config.toml").read_text().split("[node]")[0]
    chain.write_text(text.replace("[chain]\n", ""))
    homes = tmp_path / "own", tmp_path / "other"
    for home in homes:
        made = twopm(
            "node", "init", "--name", home.name, "--chain", chain,
            "--out", tmp_path / f"{home.name}.json", "--home", home,
        )  # fmt: skip
        assert made.status == 0, made.err
    card = json.loads((tmp_path / "other.json").read_bytes())
    card["name"] = HOSTILE[:40]
    (tmp_path / "other.json").write_bytes(canonical_bytes(card))
    other = NodeHome(homes[1]).signer.address
    for command in (("trust", tmp_path / "other.json", "--yes"), ("show",), ("untrust", other)):
        outcome = twopm("node", *command, "--home", homes[0])
        assert outcome.status == 0, outcome.err
        assert "[/sorry][bold]" in outcome.out
        assert is_harmless(outcome.out)


def test_the_demos_outcome_is_laid_out_in_lines_and_names_hostile_data_harmlessly(finished, capfd):
    run = load_run(finished.coordinator, None, with_ciphertexts=True)
    console().print(
        render(
            DemoResult(
                options=DemoOptions(simulation=True),
                label=HOSTILE,
                synthetic=True,
                bundle=run.bundle,
                bundle_path=run.path,
                coordinator=finished.coordinator,
                timings=run.timings,
                report=verify_bundle(run.bundle, chain=None),
                comparison=None,
                seconds={},
            )
        )
    )
    shown = capfd.readouterr().out
    assert "[/sorry][bold]" in shown
    assert is_harmless(shown)
    panel = shown[shown.index("Who could read what") :]
    assert "every result." in panel
    assert "␊" not in panel


def test_an_error_quotes_hostile_text_without_obeying_it(capfd):
    show_error(HOSTILE, HOSTILE)
    shown = capfd.readouterr().err
    assert shown.count("[/sorry][bold]") == 2
    assert is_harmless(shown)


@given(st.text(st.characters() | st.sampled_from(sorted(STEERING | set("[]\\/\n\t")))))
def test_whatever_the_text_its_printable_characters_are_shown_as_they_are(text):
    shown = Text.from_markup(f"[bold]{plain(text)}[/]", emoji=False).plain
    assert len(shown) == len(text)
    assert not STEERING & set(shown)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())


@given(st.text(st.characters() | st.sampled_from(sorted(STEERING))))
def test_json_for_programs_steers_no_terminal_and_keeps_every_character(text):
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.echo", lines.append)
        print_json({"title": text})
    assert not STEERING & set(lines[0])
    assert json.loads(lines[0]) == {"title": text}
