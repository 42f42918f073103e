"""What the guard permits, refuses and remembers."""

import contextlib
import sqlite3
import stat
import threading
from collections import deque
from functools import partial
from pathlib import Path

import pytest
from guard_victim import KEY, NODES, planned
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.errors import ConfigError, KeyExhausted, ProtocolViolation
from twopm_flower.privacy.guard import Guard, Permit

OTHER_KEY = "0x" + "4c" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task #1 %20?" / "guard.sqlite"


@contextlib.contextmanager
def guard_at(path: Path, *, fewest: int = 3, cap: int = 100, wait_s: float = 0.1):
    guard = Guard(path, min_contributors=fewest, cap=cap, wait_s=wait_s)
    with contextlib.closing(guard):
        yield guard


def ask(guard, round_=1, attempt=1, *, nodes=NODES[:3], manifest=1, key=KEY):
    guard.permit(
        key_id=key,
        round_=round_,
        attempt=attempt,
        manifest_digest=f"0x{manifest:064x}",
        survivors=nodes,
    )


def test_what_was_permitted_is_listed_and_counted_also_after_reopening(path):
    with guard_at(path) as guard:
        ask(guard, nodes=NODES[2::-1])
        ask(guard, 2, manifest=2, nodes=NODES)
        ask(guard, key=OTHER_KEY)
    with guard_at(path) as guard:
        assert guard.entries()[:2] == (
            Permit(KEY, 1, 1, f"0x{1:064x}", NODES[:3]),
            Permit(KEY, 2, 1, f"0x{2:064x}", NODES),
        )
        assert guard.used(KEY) == 2
        assert guard.used(OTHER_KEY) == 1
        assert guard.used("0x" + "00" * 32) == 0


def test_the_same_permit_may_be_asked_for_again_and_counts_once(path):
    for _ in range(3):
        with guard_at(path, cap=1) as guard:
            ask(guard)
            ask(guard, nodes=[node.upper().replace("X", "x") for node in NODES[:3]])
            assert guard.used(KEY) == 1


@pytest.mark.parametrize("reopened", [False, True])
def test_another_set_of_survivors_of_a_round_is_refused_and_both_are_named(path, reopened):
    with guard_at(path) as guard:
        ask(guard, nodes=NODES)
        if not reopened:
            _refuse_other_survivors(guard)
    if reopened:
        with guard_at(path) as guard:
            _refuse_other_survivors(guard)
    with guard_at(path) as guard:
        assert guard.used(KEY) == 1


def _refuse_other_survivors(guard: Guard) -> None:
    for attempt, manifest in ((1, 1), (1, 2), (2, 3)):
        with pytest.raises(ProtocolViolation) as refused:
            ask(guard, 1, attempt, nodes=NODES[1:], manifest=manifest)
        assert ", ".join(NODES) in str(refused.value)
        assert ", ".join(NODES[1:]) in str(refused.value)


def test_another_manifest_of_the_same_attempt_is_refused(path):
    with guard_at(path) as guard:
        ask(guard)
        with pytest.raises(ProtocolViolation, match=f"0x{1:064x}.*0x{2:064x}"):
            ask(guard, manifest=2)


def test_no_other_attempt_of_a_round_is_permitted_even_for_the_same_nodes(path):
    with guard_at(path) as guard:
        ask(guard, 1, 2)
        for attempt, manifest in ((3, 1), (3, 3)):
            with pytest.raises(ProtocolViolation, match="opened in attempt 2"):
                ask(guard, 1, attempt, manifest=manifest)
        with pytest.raises(ProtocolViolation, match="went on to round 1, attempt 2"):
            ask(guard, 1, 1)
        ask(guard, 1, 2)


def test_no_round_before_the_last_one_is_permitted(path):
    with guard_at(path) as guard:
        ask(guard, 3)
        with pytest.raises(ProtocolViolation, match="went on to round 3, attempt 1"):
            ask(guard, 2, 7)
        ask(guard, 2, key=OTHER_KEY)


@pytest.mark.parametrize(
    "nodes", [(), NODES[:2], (NODES[0],) * 3, (NODES[0], NODES[1], "0X" + NODES[1][2:].upper())]
)
def test_a_sum_of_fewer_distinct_nodes_than_agreed_is_never_permitted(path, nodes):
    with guard_at(path) as guard:
        with pytest.raises(ProtocolViolation, match="the fewest are 3"):
            ask(guard, nodes=nodes)
        assert guard.entries() == ()


def test_a_key_that_is_used_up_opens_only_what_it_was_to_open_and_says_how_to_rotate_it(path):
    with guard_at(path, cap=2) as guard:
        ask(guard, 1)
        ask(guard, 2, 1)
        with pytest.raises(KeyExhausted, match=r"its cap is 2.*Rotate.*--initial-model"):
            ask(guard, 3)
        ask(guard, 2, 1)
        ask(guard, 1, key=OTHER_KEY)
    with guard_at(path, cap=3) as guard:
        ask(guard, 3)


@pytest.mark.parametrize("wrong", [{"fewest": 1}, {"cap": 0}])
def test_a_guard_that_would_guard_nothing_is_refused(path, wrong):
    with pytest.raises(ConfigError, match="or more"), guard_at(path, **wrong):
        pass


def test_the_file_is_the_owners_alone(path):
    with guard_at(path) as guard:
        ask(guard)
        files = list(path.parent.iterdir())
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert [file.name for file in path.parent.iterdir()] == ["guard.sqlite"]


def test_a_second_holder_waits_and_is_told_why_it_cannot_go_on(path):
    with guard_at(path):
        with pytest.raises(ConfigError, match=r"another process has held .* for 0\.1 s"):
            Guard(path, min_contributors=3, cap=1, wait_s=0.1)
        # A reader is kept out as well: it would hold up the next permit.
        reader = sqlite3.connect(path, timeout=0)
        with contextlib.closing(reader), pytest.raises(sqlite3.OperationalError, match="locked"):
            reader.execute("SELECT * FROM permits")
    with guard_at(path):
        pass


def test_a_second_holder_goes_on_as_soon_as_the_first_lets_go(path):
    first = Guard(path, min_contributors=3, cap=1)
    got = []

    def wait() -> None:
        with guard_at(path, wait_s=30) as second:
            ask(second)
            got.append(second.used(KEY))

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    assert not got
    first.close()
    waiting.join(30)
    assert got == [1]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4080)])
def test_a_file_that_is_no_guard_is_refused_and_left_as_it_is(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"guard\.sqlite"), guard_at(path):
        pass
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused(path):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE permits (number)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="not a guard"), guard_at(path):
        pass
    assert path.read_bytes() == before


def test_a_guard_of_a_later_version_is_refused_with_the_way_out(path):
    with guard_at(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigError, match=r"version 2.*later"), guard_at(path):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE permits SET survivors = '[]' WHERE number = 2",
        "UPDATE permits SET survivors = 'x' WHERE number = 2",
        "UPDATE permits SET attempt = 5 WHERE number = 2",
        "UPDATE permits SET attempt = 'x' WHERE number = 2",
        "UPDATE permits SET manifest_digest = '0x' WHERE number = 2",
        "UPDATE permits SET number = 7 WHERE number = 3",
        "DELETE FROM permits WHERE number = 2",
    ],
)
def test_a_changed_permit_is_noticed(path, change):
    with guard_at(path) as guard:
        for round_ in (1, 2, 3):
            ask(guard, round_)
    with contextlib.closing(sqlite3.connect(path)) as hand:
        hand.execute(change)
        hand.commit()
    with pytest.raises(ConfigError, match="damaged"), guard_at(path):
        pass


def test_no_flipped_byte_changes_what_the_guard_remembers(path):
    with guard_at(path) as guard:
        for index in range(6):
            permit = planned(index)
            ask(guard, permit.round, permit.attempt, nodes=permit.survivors, manifest=index)
        honest = guard.entries()
    whole = path.read_bytes()
    refused = 0
    for place in {*range(0, 100, 3), *range(100, len(whole), 61)}:
        spoilt = bytearray(whole)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        try:
            with guard_at(path) as guard:
                assert guard.entries() == honest
        except ConfigError:
            refused += 1
    assert refused


def test_damage_that_only_the_integrity_check_can_see_is_noticed(path):
    with guard_at(path) as guard:
        ask(guard)
    spoilt = bytearray(path.read_bytes())
    spoilt[spoilt.index(KEY.encode(), 2 * 4096) + 9] ^= 1  # in the index, not in the table
    path.write_bytes(spoilt)
    with pytest.raises(ConfigError, match="damaged"), guard_at(path):
        pass


def test_a_permit_that_cannot_be_stored_is_not_given(path):
    with guard_at(path, cap=200) as guard:
        ask(guard)
        guard._connection.execute("PRAGMA max_page_count = 1")  # a full disk
        with pytest.raises(ConfigError, match=r"full.*nothing was permitted"):
            deque(map(partial(ask, guard), range(2, 200)))
        stored = guard.used(KEY)
    with guard_at(path, cap=200) as guard:
        assert guard.used(KEY) == stored
        ask(guard, stored + 1)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be made"), guard_at(tmp_path / "file" / "g"):
        pass


ORDERS = st.tuples(
    st.sampled_from([KEY, OTHER_KEY]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sets(st.sampled_from(NODES)),
)


@settings(max_examples=60, deadline=None)
@given(orders=st.lists(ORDERS, max_size=25), reopen=st.sets(st.integers(0, 24)))
def test_whatever_is_asked_no_round_is_opened_for_two_sets_of_nodes(
    tmp_path_factory, orders, reopen
):
    path = tmp_path_factory.mktemp("guard") / "guard.sqlite"
    guard = Guard(path, min_contributors=3, cap=5)
    opened: dict[tuple[str, int], set[frozenset[str]]] = {}
    manifests: dict[tuple[str, int, int], set[int]] = {}
    try:
        for index, (key, round_, attempt, manifest, nodes) in enumerate(orders):
            if index in reopen:
                guard.close()
                guard = Guard(path, min_contributors=3, cap=5)
            try:
                ask(guard, round_, attempt, nodes=sorted(nodes), manifest=manifest, key=key)
            except (ProtocolViolation, KeyExhausted):
                continue
            opened.setdefault((key, round_), set()).add(frozenset(nodes))
            manifests.setdefault((key, round_, attempt), set()).add(manifest)
        entries = guard.entries()
    finally:
        guard.close()
        path.unlink()
    assert all(len(sets) == 1 and len(min(sets)) >= 3 for sets in opened.values())
    assert all(len(digests) == 1 for digests in manifests.values())
    assert len({place[:2] for place in manifests}) == len(manifests)
    assert {(e.key_id, e.round, e.attempt) for e in entries} == set(manifests)
    for key in (KEY, OTHER_KEY):
        steps = [(e.round, e.attempt) for e in entries if e.key_id == key]
        assert steps == sorted(steps)
        assert len(steps) <= 5
