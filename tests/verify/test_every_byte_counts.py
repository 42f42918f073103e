"""Change every field of a bundle and of the chain, and be caught by the right step."""

import re
from dataclasses import replace

import pytest
from run_simulator import simulate
from tampering import leaf_at, leaves, mutants, tampered

from twopm_flower.errors import RecordError
from twopm_flower.records.bundle import Deployment, RunBundle
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.chaining import ChainedMember
from twopm_flower.records.fields import Record
from twopm_flower.verify import chain_view, verify_bundle

OPTIONS = {"nodes": 4, "rounds": 2}
ONE_TIME = {**OPTIONS, "trust_mode": "one-time-key", "vanished_round": 1}

# Which step may notice a change below which path; 0 is a bundle that does not load.
STEPS_BY_PATH = (
    (r"version", {0}),
    (r"deployment/", {2}),
    (r"task_id", {2}),
    (r"terms/", {1, 2}),
    (r"roster/members/\d+/signature", {3}),
    (r"roster/", {2}),
    (r"key_deal/", {3}),
    (r"rounds/\d+/manifest/(samples|updates_root|trust_mode)", {5}),
    (r"rounds/\d+/manifest/(aggregate_digest|survivors/.*/update_digest|round)", {1}),
    (r"rounds/\d+/manifest/exclusions/", {5, 6, 8}),
    (r"rounds/\d+/manifest/", {4}),
    (r"rounds/\d+/superseded/\d+/record/", {10}),
    (r"rounds/\d+/superseded/", {4, 5, 6, 10}),
    (r"rounds/\d+/updates/", {4}),
    (r"rounds/\d+/fingerprints/", {8}),
    (r"rounds/\d+/openings/", {11}),
    (r"rounds/\d+/evaluations/", {12}),
    (r"rounds/\d+/models/", {11}),
    (r"rounds/\d+/metrics/", {11}),
    (r"rounds/\d+/record/", {10}),
    (r"closing/", {12}),
    (r"finalisation/", {11}),
    (r"aggregates/", {1, 7}),
    (r"ciphertexts/", {1, 8}),
)


@pytest.fixture(scope="module", params=[OPTIONS, ONE_TIME], ids=["shared-key", "one-time-key"])
def run(request):
    return simulate(**request.param)


def noticed_by(value, chain):
    """Return the step that notices, or 0 when the bundle does not load."""
    try:
        bundle = RunBundle.from_bytes(canonical_bytes(value))
    except RecordError:
        return 0
    report = verify_bundle(bundle, chain=chain)
    assert report.exit_code == 1
    return report.first_failure.number


def expected_steps(path):
    text = "/".join(str(step) for step in path)
    return next(steps for pattern, steps in STEPS_BY_PATH if re.match(pattern, text))


def check(run, value, path, mutated):
    leaf = leaf_at(value, path)
    for mutant in mutated:
        step = noticed_by(tampered(value, path, mutant), run.chain)
        assert step in {0, *expected_steps(path)}, f"{path}: {leaf!r} -> {mutant!r}"


def kind_of(path):
    """Return the path without indices and digests: fields of one kind share it."""
    return tuple(
        "*" if isinstance(step, int) or str(step).lstrip("~").startswith("0x") else step
        for step in path
    )


# What one-time keys add to a bundle, or have checked in another way.
DIFFERENT = {"openings", "fingerprints", "updates", "ciphertexts", "colluders", "trust_mode"}


def test_a_change_in_one_field_of_each_kind_is_noticed_by_its_step(run):
    value = run.bundle.to_json()
    by_kind = {}
    for path in leaves(value):
        by_kind.setdefault(kind_of(path), []).append(path)
    assert len(by_kind) > 120
    for number, (kind, paths) in enumerate(by_kind.items()):
        if run.bundle.terms.trust_mode == "one-time-key" and not DIFFERENT.intersection(kind):
            continue
        path = paths[number % len(paths)]
        changed = mutants(leaf_at(value, path))
        check(run, value, path, [changed[number % len(changed)]])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", sorted(RunBundle.model_fields))
def test_a_change_in_any_field_is_noticed_by_its_step(run, part):
    value = run.bundle.to_json()
    for path in leaves(value):
        if path[0] == part:
            check(run, value, path, mutants(leaf_at(value, path)))


def fields_of(view):
    if issubclass(view, Record):
        return list(view.model_fields)
    return [name for name, member in vars(view).items() if isinstance(member, property)]


def other_value(value):
    if isinstance(value, int):
        return value + 1
    return {"finalised": "running"}.get(value, mutants(value)[0])


def with_other_value(honest, name):
    change = {name: other_value(getattr(honest, name))}
    if isinstance(honest, Record):
        return honest.model_copy(update=change)
    return replace(honest, **change)


@pytest.mark.parametrize(
    ("view", "place", "steps"),
    [
        (Deployment, "pinned", {2}),
        (chain_view.TaskView, "state", {2, 10, 11}),
        (chain_view.FinalView, "final", {11}),
        (ChainedMember, "roster", {2}),
        (chain_view.RecordView, "records", {10}),
    ],
)
def test_a_change_in_any_field_of_the_chain_is_noticed(view, place, steps):
    for name in fields_of(view):
        honest = getattr(simulate(**OPTIONS).chain, place)
        for index in range(len(honest) if isinstance(honest, list | tuple) else 1):
            run = simulate(**OPTIONS)
            if isinstance(honest, list | tuple):
                changed = list(honest)
                changed[index] = with_other_value(honest[index], name)
            else:
                changed = with_other_value(honest, name)
            if name == "signers":
                changed = replace(honest, signers=1)
            setattr(run.chain, place, changed)
            report = verify_bundle(run.bundle, chain=run.chain)
            assert report.exit_code == 1, f"{place}[{index}].{name}"
            assert report.first_failure.number in steps, f"{place}[{index}].{name}"
