"""Any sequence of records: the program takes those that the rule allows, and chains those."""

from hypothesis import given, settings
from hypothesis import strategies as st
from solana_machine import ZERO, digest, running

from twopm_flower.records.chaining import round_head

ROUNDS = 3
records = st.tuples(
    st.integers(0, ROUNDS + 1), st.sampled_from([0, 1, 2, 3, 2**32 - 1]), st.booleans()
)


@settings(max_examples=15, deadline=None)
@given(st.lists(records, max_size=14))
def test_random_records_are_judged_and_chained_as_the_rule_says(
    sequence: list[tuple[int, int, bool]],
) -> None:
    machine = running(2, min_contributors=2, rounds=ROUNDS)
    head, last, last_attempt, last_variant = ZERO, 0, 0, False
    for number, attempt, variant in sequence:
        manifest, root = digest(f"manifest {number} {attempt} {variant}"), digest("root")
        outcome = machine.send(
            machine.record(number, attempt, manifest_digest=manifest, updates_root=root)
        )
        if number > ROUNDS:
            expected = "TooManyRounds"
        elif (number, attempt) == (last, last_attempt) and number and variant == last_variant:
            expected = "AlreadyRecorded"
        elif (number == last + 1 and attempt) or (
            number and number == last and attempt > last_attempt
        ):
            expected = None
        else:
            expected = "OutOfOrder"
        assert outcome.error == expected
        if expected is None:
            head = round_head(
                head,
                machine.task_id(),
                number,
                attempt,
                manifest_digest=manifest,
                updates_root=root,
            )
            last, last_attempt, last_variant = number, attempt, variant
    task = machine.read("task", machine.task_at(machine.task_id()))
    assert task is not None
    assert (task["head"], task["last_round"], task["last_attempt"]) == (head, last, last_attempt)
