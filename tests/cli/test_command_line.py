"""The command line as a whole: help, errors, exit statuses, and that the docs tell all of it."""

import io
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from twopm_flower.cli import VERBS, load_verb
from twopm_flower.config import ChainSettings, CoordinatorSettings, NodeSettings, Settings

DOCS = Path(__file__).parents[2] / "docs"


def every_command():
    def walk(name, command):
        if isinstance(command, click.Group):
            for sub in command.commands.values():
                yield from walk(f"{name} {sub.name}", sub)
        else:
            yield name, command

    for verb in VERBS:
        yield from walk(verb, load_verb(verb))


COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_gives_an_example(name, twopm):
    outcome = twopm(*name.split(), "--help")
    assert outcome.status == 0
    text = " ".join(outcome.out.split())
    assert "Example:" in text
    command = COMMANDS[name]
    assert len(command.help.strip()) > 10
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_options_are_in_the_docs(name):
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"## `twopm {name}`\n" in text
    section = text.split(f"## `twopm {name}`\n")[1].split("\n## ")[0]
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option) and parameter.name not in ("home", "json", "help"):
            assert f"`{parameter.opts[0]}`" in section, f"{name} {parameter.opts[0]}"


def test_the_docs_describe_no_command_that_does_not_exist():
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `twopm (.+)`$", text, re.MULTILINE)) == set(COMMANDS)


def test_every_setting_is_in_the_docs_with_its_default():
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    sections = {"chain": ChainSettings, "node": NodeSettings, "coordinator": CoordinatorSettings}
    for section, model in sections.items():
        for name, field in model.model_fields.items():
            row = re.search(rf"^\| `{section}\.{name}` \|(.*?)\|", text, re.MULTILINE)
            assert row, f"{section}.{name}"
            if not field.is_required() and field.default is not None:
                default = field.default
                default = list(default) if isinstance(default, tuple) else default
                shown = f"{default:g}" if isinstance(default, float) else str(default)
                assert shown in row.group(1), f"{section}.{name}"
    for name in set(Settings.model_fields) - set(sections):
        assert f"| `{name}` |" in text


def test_help_comes_at_once_and_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from twopm_flower.cli import run\n"
        "run(['--help'])\n"
        "print({'torch','flwr','web3','tenseal','pandas','numpy'} & set(sys.modules),"
        " file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    for verb in VERBS:
        assert verb in done.stdout


def test_wrong_usage_is_status_2(twopm, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert twopm("nonsense").status == 2
    assert twopm("node", "nonsense").status == 2
    assert twopm("task", "create", "--rounds", "many").status == 2
    outcome = twopm("task", "create", "--run-config", "nonsense", "--home", finished.coordinator)
    assert outcome.status == 2
    assert "NAME=VALUE" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_line_with_what_to_do_next(twopm, tmp_path):
    outcome = twopm("keys", "deal", "--home", tmp_path)
    assert outcome.status == 1
    assert outcome.out == ""
    first, second = outcome.err.strip().splitlines()
    assert first.startswith("Error: there is no task")
    assert "twopm task list" in second


def test_a_traceback_is_shown_to_whoever_wants_it(twopm, tmp_path, monkeypatch):
    monkeypatch.setenv("TWOPM_DEBUG", "1")
    with pytest.raises(Exception, match="there is no task"):
        twopm("keys", "deal", "--home", tmp_path)


def test_missing_real_data_is_status_3(twopm, tmp_path, monkeypatch):
    monkeypatch.delenv("TWOPM_DATA_DIR", raising=False)
    outcome = twopm("data", "show", "--require-real", "--home", tmp_path)
    assert outcome.status == 3
    assert "twopm data add" in outcome.err


def test_no_to_a_question_changes_nothing(twopm, finished, tmp_path, monkeypatch):
    card = tmp_path / "card.json"
    twopm("node", "card", "--out", card, "--home", finished.homes[0])
    home = tmp_path / "node"
    chain = tmp_path / "chain.toml"
    text = (finished.homes[0] / "config.toml").read_text().split("[node]")[0]
    chain.write_text(text.replace("[chain]\n", ""))
    assert (
        twopm(
            "node",
            "init",
            "--name",
            "x",
            "--chain",
            chain,
            "--home",
            home,
            "--out",
            tmp_path / "x.json",
        ).status
        == 0
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    outcome = twopm("node", "trust", card, "--home", home)
    assert outcome.status != 0
    assert list(home.glob("peers/*")) == []
    assert twopm("node", "trust", card, "--yes", "--home", home).status == 0
    trusted = twopm("node", "show", "--home", home, "--json").json["trusted"]
    assert [peer["name"] for peer in trusted] == [finished.homes[0].name]
    assert twopm("node", "untrust", trusted[0]["name"], "--home", home).status == 0
    assert list(home.glob("peers/*")) == []


def test_a_question_that_nobody_can_answer_names_the_option_that_answers_it(
    twopm, finished, tmp_path, monkeypatch
):
    card = tmp_path / "card.json"
    twopm("node", "card", "--out", card, "--home", finished.homes[0])
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    outcome = twopm("node", "trust", card, "--home", finished.homes[1])
    assert outcome.status == 1
    assert outcome.out.endswith("\n")
    assert "nobody answers" in outcome.err
    assert "--yes" in outcome.err


def test_ctrl_c_is_answered_on_a_line_of_its_own(twopm, finished, tmp_path, monkeypatch):
    card = tmp_path / "card.json"
    twopm("node", "card", "--out", card, "--home", finished.homes[0])

    class Interrupted(io.StringIO):
        def readline(self, *_):
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    outcome = twopm("node", "trust", card, "--home", finished.homes[1])
    assert outcome.status == 130
    assert outcome.err == "\nError: interrupted\n"


def test_the_version_is_shown(twopm):
    assert twopm("--version").out.startswith("twopm-flower ")


def test_data_are_added_only_if_they_are_the_published_ones(twopm, tmp_path, student_data):
    source = student_data / "student-mat.csv"
    assert twopm("data", "add", source, "--home", tmp_path).status == 0
    shown = twopm("data", "show", "--home", tmp_path, "--json").json
    assert shown["published"]
    assert shown["rows"] == 395
    changed = tmp_path / "student-por.csv"
    lines = (student_data / "student-por.csv").read_text().splitlines()
    changed.write_text("\n".join(lines[:-1]) + "\n")
    outcome = twopm("data", "add", changed, "--home", tmp_path)
    assert outcome.status == 1
    assert "not the published file" in outcome.err
    other = twopm("data", "add", tmp_path / "grades.csv", "--home", tmp_path)
    assert "not the name of a published file" in other.err


def test_the_data_folder_is_below_the_home(twopm, tmp_path):
    assert twopm("data", "path", "--home", tmp_path).out.strip() == str(tmp_path / "data")


@pytest.mark.parametrize("family", ["ledger", "solana"])
def test_a_local_chain_that_cannot_be_reached_by_others_says_so(family, twopm, tmp_path):
    folder = tmp_path / "chain"
    outcome = twopm(*f"chain devnet --family {family} --host 0.0.0.0 --folder".split(), str(folder))
    assert outcome.status == 1
    assert "0.0.0.0" in outcome.err
    assert "docs/" in outcome.err
    assert not folder.exists()
