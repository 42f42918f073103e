import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_pages import PAGES, REPOSITORY, ROOT, anchors, fences, links

from twopm_flower.privacy.sharing import fewest_survivors, threshold_for

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if target.startswith(f"{REPOSITORY}/blob/main/"):
            file = ROOT / target.removeprefix(f"{REPOSITORY}/blob/main/")
        elif "://" in target or target.startswith("mailto:"):
            continue
        else:
            file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_of_the_package_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:twopm_flower|tests|contracts|docs)/[\w./-]+)`", page.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_what_the_security_page_computes_is_what_it_prints() -> None:
    blocks = fences(ROOT / "SECURITY.md")
    computed = [(code, shown) for code, shown in pairwise(blocks) if code.language == "python"]
    assert len(computed) == 4
    for code, shown in computed:
        answer = subprocess.run(
            [sys.executable, "-c", code.text], capture_output=True, text=True, check=True
        )
        assert answer.stdout == shown.text


def test_the_architecture_page_has_every_package_and_the_import_rules_of_the_linter() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "twopm_flower"
    modules = {
        path.stem
        for path in package.iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or path.is_dir())
    }
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == modules
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in settings["contracts"] if c["type"] == "layers")["layers"]
    existing = [[name for name in re.findall(r"\w+", layer) if name in modules] for layer in layers]
    (shown,) = [f.text for f in fences(ROOT / "docs" / "architecture.md") if f.text.count(":") > 2]
    assert [re.findall(r"\w+", line) for line in shown.splitlines()] == [
        names for names in existing if names
    ]


def modules_in_table(package: str) -> tuple[set[str], set[str]]:
    """Return the modules that the architecture page lists of a package, and those it has."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    (table,) = re.findall(rf"where in `{package}` \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    there = {path.stem for path in (ROOT / "twopm_flower" / package).glob("[!_]*.py")}
    return set(re.findall(r"`(\w+)`", table)), there


def test_the_inference_page_has_every_path_and_status_of_the_service() -> None:
    code = (ROOT / "twopm_flower" / "inference" / "service.py").read_text()
    routes = re.findall(r"@app\.(get|post)\(\s*\"(/[^\"]+)\"", code)
    declared = re.findall(r"\bproblems\(([\d, ]+)\)", code)
    text = (ROOT / "docs" / "inference.md").read_text()
    shown = set(re.findall(r"^\| `(GET|POST) (/\S+)` \|", text, re.MULTILINE))
    assert len(routes) > 5
    assert shown - {("GET", "/openapi.json")} == {
        (method.upper(), path.replace("{digest}", "DIGEST")) for method, path in routes
    }
    section = text.split("## The HTTP interface")[1].split("\n## ")[0]
    told = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)
    statuses = [set(re.findall(r"\d{3}", ", ".join(group))) for group in (told, declared)]
    assert statuses[0] == statuses[1]
    assert len(statuses[0]) >= 10


def test_every_module_of_privacy_that_the_architecture_page_lists_exists() -> None:
    named, there = modules_in_table("privacy")
    assert len(named) > 20
    assert named <= there


@pytest.mark.parametrize(
    ("package", "named_before"),
    [("chain", {"base", "facts", "calls", "backends"}), ("signer", set())],
)
def test_the_architecture_page_says_what_each_module_of_chain_and_signer_is(
    package: str, named_before: set[str]
) -> None:
    named, there = modules_in_table(package)
    assert named == there - named_before


def test_the_guide_tells_operators_the_thresholds_that_nodes_compute() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    rows = re.findall(r"^" + r"\| (\d+) " * 6 + r"\|$", page, re.MULTILINE)
    assert {int(row[0]) for row in rows} == {3, 4, 5, 7, 10, 20}
    for members, colluders, *shown in (map(int, row) for row in rows):
        threshold = threshold_for(members, colluders)
        survivors = fewest_survivors(threshold, colluders)
        false = (members - threshold) // 2
        assert shown == [threshold, survivors, members - survivors, false]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_describes_itself_and_follows_dark_mode(picture: Path) -> None:
    svg = ElementTree.parse(picture).getroot()
    space = {"svg": "http://www.w3.org/2000/svg"}
    labelled = svg.attrib["aria-labelledby"].split()
    described = [svg.find(f"svg:{tag}", space) for tag in ("title", "desc")]
    assert all(e is not None and e.attrib["id"] in labelled and e.text for e in described)
    assert "prefers-color-scheme: dark" in picture.read_text()
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")


def test_every_kind_of_plug_in_that_is_declared_is_one_that_the_package_looks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    read = "".join(path.read_text() for path in (ROOT / "twopm_flower").rglob("*.py"))
    named = "".join(page.read_text() for page in PAGES)
    for group in project["entry-points"]:
        assert f'"{group}"' in read
        assert f"`{group}`" in named
