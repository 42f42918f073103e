"""What the checklist says of a simulated run that was tampered with."""

from twopm_flower.verify import verify_bundle


def outcome(simulation, **changes):
    """Return (number, detail) of the first step that fails."""
    bundle = simulation.bundle.model_copy(update=changes)
    report = verify_bundle(bundle, chain=simulation.chain)
    assert report.exit_code == 1
    failure = report.first_failure
    assert all(step.status != "failed" for step in report.steps[failure.number :])
    return failure.number, failure.detail


def with_round(bundle, number, **changes):
    """Return the rounds with one of them changed."""
    rounds = list(bundle.rounds)
    rounds[number - 1] = rounds[number - 1].model_copy(update=changes)
    return tuple(rounds)
