"""How tasks look on the command line: terms, rosters, run configurations."""

import json
from typing import Any

from twopm_flower.cli.output import fields, print_json, say
from twopm_flower.node.terms import quorum_warning
from twopm_flower.privacy.sharing import threshold_for
from twopm_flower.records.roster import Roster
from twopm_flower.records.terms import TaskTerms


def run_config_toml(config: dict[str, Any]) -> str:
    """Return a run configuration as ``flwr run --run-config FILE`` reads it."""
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in config.items()
    )


def show_terms(task_id: str, terms: TaskTerms) -> None:
    """Print what a person agrees to with these terms."""
    if terms.trust_mode == "plaintext":
        say("[bold red]PLAINTEXT: updates are not encrypted; for comparison only.[/]")
    most = terms.parameters["max_nodes"]
    size = sum(_size(array.shape) for array in terms.arrays)
    fields(
        {
            "task": task_id,
            "title": terms.title,
            "data": terms.dataset.get("label", "the app's own"),
            "trust mode": _mode(terms),
            **_opening(terms),
            "rounds": terms.rounds,
            "contributors": f"at least {terms.min_contributors} of at most {most} members",
            "quorum": f"{terms.quorum} must sign the same model; no majority of more than "
            f"{2 * terms.quorum - 1} members",
            "clip": f"±{terms.clip:g} for each of {size} weights",
            "rows": f"at most {terms.max_samples} for training on one node",
            "training": ", ".join(f"{name} {value}" for name, value in terms.train_config.items()),
            "opened": "as sums over all nodes: "
            + ", ".join(metric.name for metric in terms.evaluation_metrics),
            "terms digest": terms.digest,
            "app digest": terms.app_bundle,
        }
    )
    warning = quorum_warning(terms.quorum, terms.min_contributors)
    if warning is not None:
        say(f"[bold red]Warning:[/] [red]{warning}[/]")


def _opening(terms: TaskTerms) -> dict[str, str]:
    if terms.trust_mode != "one-time-key":
        return {}
    fewest, most = terms.min_contributors, terms.parameters["max_nodes"]
    shown = range(fewest, max(fewest, min(most, fewest + 3)) + 1)
    items = [f"{threshold_for(members, terms.colluders)} of {members}" for members in shown]
    if most > shown[-1]:
        gap = "... " if most > shown[-1] + 1 else ""
        items.append(f"{gap}{threshold_for(most, terms.colluders)} of {most}")
    return {"opening": f"members who together open a sum: {', '.join(items)}"}


def _mode(terms: TaskTerms) -> str:
    with_members = {0: "", 1: ", with one member,"}.get(
        terms.colluders, f", with up to {terms.colluders} members,"
    )
    return _MODES[terms.trust_mode].format(with_members=with_members)


_MODES = {
    "shared-key": "shared-key: the server reads nothing; a member that got hold of another's "
    "ciphertext could read it",
    "one-time-key": "one-time-key: the server{with_members} reads sums only",
    "plaintext": "PLAINTEXT: everybody can read every update",
}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def show_roster(task_id: str, roster: Roster, quorum: int, file: str, as_json: bool) -> None:
    """Print the members of a task, the first of whom deals the key, and what is to be feared."""
    warning = quorum_warning(quorum, len(roster.members))
    if as_json:
        members = [{"node": m.node, "samples": m.samples} for m in roster.members]
        print_json(
            {
                "task_id": task_id,
                "roster_digest": roster.digest,
                "file": file,
                "members": members,
                "warning": warning,
            }
        )
        return
    fields({"task": task_id, "roster digest": roster.digest, "file": file})
    for index, member in enumerate(roster.members):
        role = " (deals the key)" if index == 0 else ""
        say(f"  {member.node}  {member.samples:>6} rows{role}")
    if warning is not None:
        say(f"[bold red]Warning:[/] [red]{warning}[/]")
