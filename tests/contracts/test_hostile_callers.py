"""What somebody with an account and bad intentions gets from the contracts: nothing."""

import pytest
from contract_calls import (
    FAR_FUTURE,
    ZERO,
    Contracts,
    departure,
    joining,
    model,
    publication,
    registration,
    signer,
    task_id_of,
    word,
)
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from twopm_flower.chain.contracts import explain_revert
from twopm_flower.chain.devnet import Devnet
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.evm import EvmReader, deploy
from twopm_flower.errors import TransactionReverted

TERMS, KEY = word(1), word(20)
NODES = tuple(signer(number) for number in (30, 31, 32))
NOBODY = "0x" + "00" * 20
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("hostile")) as devnet:
        yield devnet


@pytest.fixture(scope="module")
def contracts(devnet):
    contracts = Contracts(devnet)
    for node in NODES:
        contracts.do("NodeRegistry", "register", *registration(contracts, node, KEY, 0))
    return contracts


@pytest.fixture
def task_id(contracts):
    coordinator = contracts.devnet.signer.address
    number = contracts.get("TaskRegistry", "tasksCreatedBy", coordinator)
    contracts.do("TaskRegistry", "createTask", TERMS, 2**32 - 1, 2, 2, 2**64 - 1)
    return task_id_of(
        contracts.devnet.chain_id, contracts.address("TaskRegistry"), coordinator, number
    )


def refused(contracts, error, name, function, *arguments):
    with pytest.raises(TransactionReverted) as caught:
        contracts.do(name, function, *arguments)
    assert caught.value.error_name == error


def stored(contracts, task_id):
    return contracts.get("TaskRegistry", "getTask", task_id)


def test_a_stranger_whose_reason_is_no_text_silences_nobody(devnet, tmp_path):
    deployment = deploy(devnet.rpc, devnet.signer)
    reader, contracts = EvmReader(devnet.rpc, deployment), Contracts(devnet)
    stranger = signer(40)
    contracts.fund(stranger)
    created = contracts.encode("TaskRegistry", "createTask", TERMS, 1, 2, 1, 1)
    contracts.transact(stranger, created, to=deployment.task_registry)
    theirs = task_id_of(devnet.chain_id, deployment.task_registry, stranger.address, 0)
    words = contracts.encode("TaskRegistry", "cancel", theirs, "AAAA").replace(
        b"AAAA".hex(), b"\xff\xfe\x1bA".hex()
    )
    assert contracts.transact(stranger, words, to=deployment.task_registry)["status"] == 1
    anchored = contracts.encode("ReceiptRegistry", "anchor", word(3), 1)
    contracts.transact(devnet.signer, anchored, to=deployment.receipt_registry)

    first = reader.head_block() - 2
    with EventStream(reader, tmp_path / "events.sqlite", first_block=first) as stream:
        events = [item.event for item in stream]
    assert [event.name for event in events] == [
        "task_created",
        "task_cancelled",
        "receipts_anchored",
    ]
    assert events[1].values["reason"] == "\ufffd\ufffd\x1bA"


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda good: [good[0], good[0]], "AlreadyMember"),
        (lambda good: [good[0], (*good[1][:1], 0, *good[1][2:])], "SamplesOutOfRange"),
        (lambda good: [good[0], (*good[1][:2], ZERO, *good[1][3:])], "ZeroDigest"),
        (lambda good: [good[0], (*good[1][:4], good[0][4])], "WrongSigner"),
        (lambda good: [good[0], (NOBODY, *good[1][1:])], "SealingKeyMismatch"),
    ],
    ids=["twice", "no samples", "no data", "another's signature", "nobody"],
)
def test_one_bad_entry_lets_nobody_of_its_batch_in(contracts, task_id, spoil, error):
    before = stored(contracts, task_id)
    good = [joining(contracts, task_id, TERMS, node, 5, KEY) for node in NODES[:2]]
    refused(contracts, error, "TaskRegistry", "join", task_id, spoil(good))
    assert stored(contracts, task_id) == before
    assert contracts.get("TaskRegistry", "samplesOf", task_id, NODES[0].address) == 0


def test_a_batch_of_nobody_changes_nothing(contracts, task_id):
    before = stored(contracts, task_id)
    contracts.do("TaskRegistry", "join", task_id, [])
    assert stored(contracts, task_id) == before


def spoilt(signature: bytes) -> dict[str, tuple[bytes, str]]:
    """Return other ways to write a signature, or none at all, and what is said of each."""
    r, s, v = signature[:32], int.from_bytes(signature[32:64]), signature[64]
    compact = ((v - 27) << 255 | s).to_bytes(32)
    high = (CURVE_ORDER - s).to_bytes(32) + bytes([55 - v])
    return {
        "other form": (r + high, "ECDSAInvalidSignatureS"),
        "compact": (r + compact, "ECDSAInvalidSignatureLength"),
        "longer": (signature + b"\0", "ECDSAInvalidSignatureLength"),
        "none": (b"", "ECDSAInvalidSignatureLength"),
        "zeros": (bytes(65), "ECDSAInvalidSignature"),
        "v of 0 or 1": (signature[:64] + bytes([v - 27]), "ECDSAInvalidSignature"),
        "v of the chain": (signature[:64] + bytes([v + 8]), "ECDSAInvalidSignature"),
    }


@pytest.mark.parametrize("how", spoilt(bytes(64) + b"\x1b"))
def test_no_statement_has_a_second_signature(contracts, task_id, how):
    node = NODES[2]
    calls = {
        ("NodeRegistry", "register"): registration(contracts, node, word(21), 1),
        ("NodeRegistry", "depart"): departure(contracts, node, 1),
        ("DataRegistry", "publish"): publication(contracts, node, word(2), 1, word(3), 9),
    }
    for (name, function), arguments in calls.items():
        bad, error = spoilt(arguments[-1])[how]
        refused(contracts, error, name, function, *arguments[:-1], bad)
    good = joining(contracts, task_id, TERMS, node, 5, KEY)
    bad, error = spoilt(good[-1])[how]
    refused(contracts, error, "TaskRegistry", "join", task_id, [(*good[:-1], bad)])


@pytest.mark.parametrize("signature", [bytes(65), bytes(64) + b"\x1b", b"\xff" * 65])
def test_nobody_is_no_node(contracts, signature):
    with pytest.raises(TransactionReverted, match="ECDSA"):
        contracts.do("NodeRegistry", "register", NOBODY, KEY, FAR_FUTURE, signature)
    refused(contracts, "NotRegistered", "NodeRegistry", "depart", NOBODY, FAR_FUTURE, signature)


def test_a_signature_of_one_kind_or_registry_is_none_of_another(contracts):
    node = NODES[2]
    leaving = departure(contracts, node, 1)
    refused(
        contracts, "WrongSigner", "NodeRegistry", "register",
        node.address, word(21), FAR_FUTURE, leaving[-1],
    )  # fmt: skip
    twin = Contracts(contracts.devnet)
    twin.do("NodeRegistry", "register", *registration(twin, node, KEY, 0))
    refused(twin, "WrongSigner", "NodeRegistry", "depart", *leaving)
    data = publication(contracts, node, word(2), 1, word(3), 9)
    refused(twin, "WrongSigner", "DataRegistry", "publish", *data)


def test_numbers_at_their_widths_are_recorded_and_go_no_further(contracts, task_id):
    most, last = 2**32 - 1, (ZERO, 2**32 - 1, word(5), word(6))
    batch = [joining(contracts, task_id, TERMS, node, 2**53 - 1, KEY) for node in NODES]
    contracts.do("TaskRegistry", "join", task_id, batch)
    contracts.do("TaskRegistry", "start", task_id)
    contracts.do("TaskRegistry", "recordRound", task_id, 1, most, *last[2:])
    for round_, attempt in ((1, most), (1, 0), (0, most), (0, 0), (most, 1)):
        refused(
            contracts, "OutOfOrder", "TaskRegistry", "recordRound",
            task_id, round_, attempt, *last[2:],
        )  # fmt: skip
    said = model(contracts, task_id, 1, last, word(7), word(8), NODES)
    contracts.do("TaskRegistry", "attest", *said)
    refused(contracts, "RoundsMissing", "TaskRegistry", "finalise", *said)


def test_a_member_signs_twice_in_vain_and_an_outsider_adds_nothing(contracts, task_id):
    batch = [joining(contracts, task_id, TERMS, node, 5, KEY) for node in NODES[:2]]
    contracts.do("TaskRegistry", "join", task_id, batch)
    contracts.do("TaskRegistry", "start", task_id)
    contracts.do("TaskRegistry", "recordRound", task_id, 1, 1, word(5), word(6))
    last = (ZERO, 1, word(5), word(6))
    said = model(contracts, task_id, 1, last, word(7), word(8), NODES[:1])
    twice = [*said[:-1], said[-1] * 2]
    refused(contracts, "SignersNotIncreasing", "TaskRegistry", "attest", *twice)
    with_outsider = model(contracts, task_id, 1, last, word(7), word(8), (NODES[0], NODES[2]))
    refused(contracts, "NotMember", "TaskRegistry", "attest", *with_outsider)


def test_bytes_beyond_a_number_or_an_address_are_refused_and_no_contract_takes_money(contracts):
    good = contracts.encode("TaskRegistry", "createTask", TERMS, 1, 2, 1, 1)
    registry = contracts.address("TaskRegistry")
    words = bytes.fromhex(good[2:])
    for place in range(1, 5):
        start = 4 + 32 * place
        wide = words[:start] + b"\x01" + words[start + 1 :]
        sent = contracts.transact(contracts.devnet.signer, "0x" + wide.hex(), to=registry)
        assert sent["status"] == 0
    for name, contract in contracts.deployed.items():
        paid = contracts.transact(contracts.devnet.signer, "0x", to=contract.address, value=1)
        assert paid["status"] == 0, name
    paid = contracts.transact(contracts.devnet.signer, good, to=registry, value=1)
    assert paid["status"] == 0


@pytest.mark.parametrize("offset", [2**256 - 32, 2**255, 2**64, 10**6])
def test_a_list_that_is_said_to_stand_elsewhere_costs_its_caller_and_nobody_else(
    contracts, task_id, offset
):
    call = contracts.encode("TaskRegistry", "join", task_id, [])[:10]
    data = call + encode(["bytes32", "uint256"], [task_id, offset]).hex()
    sent = contracts.transact(contracts.devnet.signer, data, to=contracts.address("TaskRegistry"))
    assert sent["status"] == 0
    assert sent["gasUsed"] < 100_000


@pytest.mark.parametrize("error", ["Error(string)", "StringTooLong(string)"])
def test_a_refusal_whose_words_are_no_text_or_too_many_is_still_a_refusal(error):
    selector = keccak(text=error)[:4]
    for words in (b"\xff\xfe", b"a" * 100_000):
        refusal = explain_revert(selector + encode(["bytes"], [words]), "join")
        assert str(refusal).startswith("join was refused: ")
        assert len(str(refusal)) < 400
