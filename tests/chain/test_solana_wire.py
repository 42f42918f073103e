import base64
import json
import struct
from importlib.resources import files

import pytest
from eth_utils import keccak, to_checksum_address
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from twopm_flower.chain.calls import FinalRound
from twopm_flower.chain.solana_events import events_in
from twopm_flower.chain.solana_identity import (
    Accounts,
    account_address,
    address_text,
    chain_id_of,
    deployment_at,
    program_of,
)
from twopm_flower.chain.solana_program import (
    LOADER,
    PROGRAM_ID,
    UPGRADEABLE_LOADER,
    AccountInfo,
    packaged_program,
    why_not_ours,
)
from twopm_flower.chain.solana_state import (
    read_anchor,
    read_config,
    read_coordinator,
    read_dataset_version,
    read_member,
    read_node,
    read_tally,
    read_task,
)
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import ChainError

ARTIFACTS = files("twopm_flower.chain") / "artifacts" / "solana"
INTERFACE = json.loads((ARTIFACTS / "interface.json").read_text())
NUMBERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}
BYTES = {"address": 20, "bytes32": 32, "bytes65": 65}
OURS, OTHER = str(PROGRAM_ID), str(Pubkey(b"\x07" * 32))

NODE = address_text(b"\x0a" * 20)
KEY = b"\x0b" * 32
SIGNATURE = "0x" + "0c" * 65
DEPLOYMENT = deployment_at(b"\x0d" * 32, PROGRAM_ID)
AT = Accounts(PROGRAM_ID)
WRITE = Instructions(AT, KEY)


def d(number):
    return f"0x{number:064x}"


TALLY = AT.tally(bytes(32))
LAST = FinalRound(d(1), 1, d(2), d(3))
WRITTEN = {
    "initialise": WRITE.initialise(DEPLOYMENT),
    "register": WRITE.register(NODE, d(1), 2, SIGNATURE),
    "depart": WRITE.depart(NODE, 2, SIGNATURE),
    "publish": WRITE.publish(NODE, d(1), 2, commitment=d(3), samples=4, signature=SIGNATURE),
    "create_task": WRITE.create_task(
        d(1), d(2), rounds=3, min_contributors=4, quorum=5, max_samples=6
    ),
    "join": WRITE.join(
        d(1), NODE, samples=2, data_commitment=d(3), sealing_key=d(4), signature=SIGNATURE
    ),
    "start": WRITE.start(d(1)),
    "record_round": WRITE.record_round(d(1), 2, 3, d(4), d(5)),
    "open_tally": WRITE.open_tally(d(9), TALLY, LAST, d(4), d(5)),
    "add_signatures": WRITE.add_signatures(d(9), TALLY, [(NODE, SIGNATURE)] * 3),
    "attest": WRITE.attest(d(9), TALLY),
    "finalise": WRITE.finalise(d(9), TALLY),
    "close_tally": WRITE.close_tally(d(9), TALLY),
    "cancel": WRITE.cancel(d(9), "no more"),
    "anchor": WRITE.anchor(d(1), 2),
}
# What the samples above hold, in the order of the interface's fields.
VALUES = {
    "register": [NODE, d(1), 2, SIGNATURE],
    "depart": [NODE, 2, SIGNATURE],
    "publish": [NODE, d(1), 2, d(3), 4, SIGNATURE],
    "create_task": [d(2), 3, 4, 5, 6],
    "join": [NODE, 2, d(3), d(4), SIGNATURE],
    "record_round": [2, 3, d(4), d(5)],
    "open_tally": [d(2), d(3), d(4), d(5)],
    "cancel": ["no more"],
    "anchor": [d(1), 2],
}


def encode(kind, value):
    if kind in NUMBERS:
        return struct.pack("<" + NUMBERS[kind], value)
    if kind == "text":
        return struct.pack("<H", len(value.encode())) + value.encode()
    return bytes.fromhex(value[2:])


def test_every_instruction_of_the_program_can_be_written():
    assert set(WRITTEN) == set(INTERFACE["instructions"])


@pytest.mark.parametrize("name", WRITTEN)
def test_an_instruction_is_laid_out_as_the_interface_says(name):
    defined, written = INTERFACE["instructions"][name], WRITTEN[name]
    assert written.program_id == PROGRAM_ID
    assert written.data[0] == defined["tag"]
    if name in VALUES:
        fields = zip(defined["fields"], VALUES[name], strict=True)
        assert written.data[1:] == b"".join(encode(kind, value) for (_, kind), value in fields)
    flags = [role for _, role in defined["accounts"]]
    flags += [role for _, role in defined.get("accounts_per_signature", [])] * 3
    assert [
        "s" * account.is_signer + "w" * account.is_writable for account in written.accounts
    ] == flags
    assert written.accounts[0].pubkey == Pubkey(KEY)


@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_a_number_that_fits_no_field_is_refused_by_the_name_of_the_call(wrong):
    with pytest.raises(ChainError, match="recordRound"):
        WRITE.record_round(d(1), wrong, 1, d(2), d(3))


@pytest.mark.parametrize("wrong", ["0x12", NODE.lower(), "", "0x" + "zz" * 20, NODE + "00"])
def test_an_address_of_another_form_is_refused(wrong):
    with pytest.raises(ChainError):
        WRITE.depart(wrong, 1, SIGNATURE)


def test_places_are_derived_as_the_page_says():
    task, node = bytes(range(32)), b"\x01" * 20
    derived = {
        AT.config: [b"config"],
        AT.node(address_text(node)): [b"node", node],
        AT.dataset(address_text(node), d(5)): [b"dataset", node, bytes.fromhex(d(5)[2:])],
        AT.coordinator(KEY): [b"coordinator", KEY],
        AT.task("0x" + task.hex()): [b"task", task],
        AT.member("0x" + task.hex(), address_text(node)): [b"member", task, node],
        AT.tally(task): [b"tally", task],
        AT.anchor(KEY, "0x" + task.hex()): [b"anchor", KEY, task],
    }
    for place, seeds in derived.items():
        assert place == Pubkey.find_program_address(seeds, PROGRAM_ID)[0]


def test_identities_stay_what_they_are():
    assert account_address(bytes(32)) == "0x8c9F6A24887Db7D2190E6fEa513814d1f2A82ab8"
    assert chain_id_of(bytes(32)) == 8411565931424671
    deployment = deployment_at(bytes(32), Pubkey(b"\x01" * 32))
    assert deployment.genesis_hash == d(0)
    assert deployment.node_registry == "0xfe1a7F3C39D700862B96f068F43D942B8E50e5C3"
    assert deployment.task_registry == "0x9b7Fc7b4d45B5a87223e5Ae389B18B2e7C921438"
    assert deployment.data_registry == "0x6d9ECA25A79de7e88EA20723377A189cD4780fD9"
    assert deployment.receipt_registry == "0xb7427d3B20ecdd40b5680258f68D9054f98fFE94"
    # The same, by the words of the page.
    said = b"twopm-flower/solana/account/v1"
    assert account_address(KEY) == to_checksum_address(keccak(said + KEY)[12:])
    first = int.from_bytes(keccak(b"twopm-flower/solana/chain/v1" + bytes(32))[:8])
    assert chain_id_of(bytes(32)) == 1 + first % (2**53 - 1)


def test_a_deployment_without_a_program_is_refused():
    with pytest.raises(ChainError, match="no-program"):
        program_of(DEPLOYMENT.model_copy(update={"program": "no-program"}))


READERS = {
    "config": read_config,
    "node": read_node,
    "dataset": read_dataset_version,
    "coordinator": read_coordinator,
    "task": read_task,
    "member": read_member,
    "tally": read_tally,
    "anchor": read_anchor,
}


@pytest.mark.parametrize("name", READERS)
def test_an_account_of_another_kind_length_or_version_is_refused(name):
    defined = INTERFACE["accounts"][name]
    good = bytearray(defined["length"])
    good[0], good[1] = defined["kind"], 1
    if name == "task":
        good[260] = 1
    READERS[name](bytes(good))
    for wrong in (
        good[:-1],
        good + b"\0",
        b"",
        bytes([defined["kind"] % 8 + 1]) + good[1:],
        good[:1] + b"\x02" + good[2:],
    ):
        with pytest.raises(ValueError, match=r"bytes|kind"):
            READERS[name](bytes(wrong))


@pytest.mark.parametrize("state", [0, 5, 255])
def test_a_task_in_no_state_is_refused(state):
    data = bytearray(264)
    data[0], data[1], data[260] = 5, 1, state
    with pytest.raises(ValueError, match="state"):
        read_task(bytes(data))


def line(data):
    return "Program data: " + base64.b64encode(data).decode()


def node_left(nonce=3):
    return bytes([2, 1]) + b"\x0a" * 20 + struct.pack("<Q", nonce)


def ran(program, *inside, depth=1):
    return [f"Program {program} invoke [{depth}]", *inside, f"Program {program} success"]


def snake(name):
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


VALUE = {
    "address": st.binary(min_size=20, max_size=20),
    "bytes32": st.binary(min_size=32, max_size=32),
    "text": st.text(max_size=60),
    **{kind: st.integers(0, 256 ** struct.calcsize(code) - 1) for kind, code in NUMBERS.items()},
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_event_is_read_with_all_its_fields(data):
    name = data.draw(st.sampled_from([n for n in INTERFACE["events"] if n != "Initialised"]))
    defined = INTERFACE["events"][name]
    raw, expected = bytes([defined["tag"], 1]), {}
    for field, kind in defined["fields"]:
        value = data.draw(VALUE[kind])
        raw += value if isinstance(value, bytes) else encode(kind, value)
        if field in ("coordinator", "issuer"):
            value = account_address(value)
        elif kind == "address":
            value = address_text(value)
        elif kind == "bytes32":
            value = "0x" + value.hex()
        expected[field] = value
    (event,) = events_in(ran(OURS, line(raw)), PROGRAM_ID)
    known = {"NodeRegistered": "node_registered", "ReceiptsAnchored": "receipts_anchored"}
    assert event.name == known.get(name, snake(name))
    assert event.values == expected
    for wrong in (raw[:-1], raw + b"\0"):
        with pytest.raises(ValueError, match=r"short|many"):
            events_in(ran(OURS, line(wrong)), PROGRAM_ID)


FORGED = {
    "another program": ran(OTHER, line(node_left())),
    "after ours ended": [*ran(OURS), line(node_left())],
    "outside of all programs": [line(node_left())],
    "a program that ours called": ran(OURS, *ran(OTHER, line(node_left()), depth=2)),
    "a program that calls ours": ran(OTHER, *ran(OURS, depth=2), line(node_left())),
    "words that look like a call": ran(
        OTHER, f"Program log: Program {OURS} invoke [2]", line(node_left())
    ),
    "words over two lines": ran(
        OTHER, f"Program log: x\nProgram {OURS} invoke [2]", line(node_left())
    ),
    "words of ours": ran(OURS, "Program log: " + line(node_left())),
    "what ours returned": ran(OURS, f"Program return: {OURS} {line(node_left())[14:]}"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_an_event_that_our_program_did_not_log_is_no_event(forgery):
    assert events_in(FORGED[forgery], PROGRAM_ID) == ()


def test_an_event_counts_wherever_ours_is_the_innermost_program():
    logs = ran(
        OTHER,
        line(node_left(1)),
        *ran(OURS, line(node_left(2)), *ran(OTHER, depth=3), line(node_left(3)), depth=2),
        line(node_left(4)),
    )
    assert [event.values["nonce"] for event in events_in(logs, PROGRAM_ID)] == [2, 3]


BROKEN = {
    "a depth that is skipped": ran(OURS, line(node_left()), depth=2),
    "an end without a beginning": [f"Program {OURS} success"],
    "an end of another": [f"Program {OURS} invoke [1]", f"Program {OTHER} success"],
    "no end": [f"Program {OURS} invoke [1]", line(node_left())],
    "no base64": ran(OURS, "Program data: !"),
    "two fields": ran(OURS, line(node_left()) + " " + line(node_left())[14:]),
    "an unknown tag": ran(OURS, line(b"\xee\x01")),
    "another version": ran(OURS, line(b"\x02\x02" + bytes(28))),
    "nothing": ran(OURS, line(b"")),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_log_that_no_validator_writes_is_refused(fault):
    with pytest.raises(ValueError, match=r"log|event|ends|base64"):
        events_in(BROKEN[fault], PROGRAM_ID)


def test_what_stands_before_the_cut_of_a_log_counts():
    logs = [f"Program {OURS} invoke [1]", line(node_left()), "Log truncated"]
    assert len(events_in(logs, PROGRAM_ID)) == 1


def held(code, *, authority=None, kind=3):
    owner = b"\x01" + bytes(authority) if authority else b"\0" * 33
    data = kind.to_bytes(4, "little") + bytes(8) + owner + code
    return AccountInfo(UPGRADEABLE_LOADER, data, executable=False, slot=1)


POINTER = AccountInfo(UPGRADEABLE_LOADER, b"\x02\0\0\0" + b"\x05" * 32, executable=True, slot=1)
CODE = packaged_program()


@pytest.mark.parametrize("code", [CODE, CODE + bytes(100)])
def test_a_program_whose_upgrades_were_given_up_is_ours(code):
    asked = []
    assert why_not_ours(POINTER, lambda key: asked.append(key) or held(code)) is None
    assert asked == [Pubkey(b"\x05" * 32)]


def test_a_program_that_can_be_changed_is_not_believed():
    authority = Pubkey(b"\x09" * 32)
    reason = why_not_ours(POINTER, lambda _: held(CODE, authority=authority))
    assert f"can be changed by {authority}" in reason


def fixed(code, owner=LOADER, *, executable=True):
    return AccountInfo(owner, code, executable=executable, slot=1)


@pytest.mark.parametrize(
    ("program", "data"),
    [
        (None, None),
        (fixed(CODE, executable=False), None),
        (fixed(CODE[:-1] + bytes([CODE[-1] ^ 1])), None),
        (fixed(CODE + b"\0"), None),
        (fixed(CODE, owner=Pubkey(b"\x01" * 32)), None),
        (POINTER, None),
        (POINTER, held(CODE[:-1])),
        (POINTER, held(CODE + bytes(99) + b"\x01")),
        (POINTER, held(CODE, kind=2)),
        (POINTER, fixed(held(CODE).data)),
        (fixed(b"\x03\0\0\0" + bytes(32), owner=UPGRADEABLE_LOADER), held(CODE)),
    ],
)
def test_another_program_is_not_ours(program, data):
    assert why_not_ours(program, lambda _: data) is not None


def test_the_program_on_a_local_chain_is_ours():
    assert why_not_ours(fixed(CODE), lambda _: None) is None
