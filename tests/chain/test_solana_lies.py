import base64
import secrets

import pytest
from chain_stage import FAR_FUTURE, digest, new_node
from solana_stage import (
    ELSEWHERE,
    Lying,
    open_stage_with_twin,
    pay,
)
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer

from twopm_flower.chain import solana_account, solana_history, solana_rpc
from twopm_flower.chain.solana import SolanaReader, deploy
from twopm_flower.chain.solana_identity import Accounts, deployment_at
from twopm_flower.chain.solana_program import PROGRAM_ID
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import (
    ChainUnavailable,
    WrongChain,
)

AT = Accounts(PROGRAM_ID)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = open_stage_with_twin(tmp_path_factory.mktemp("solana") / "chain")
    with chain.local:
        yield chain


@pytest.fixture(scope="module")
def stage(chain):
    return chain.stage


@pytest.fixture(scope="module")
def nodes(stage):
    return stage.registered_nodes(3)


@pytest.fixture(scope="module")
def told(stage, nodes):
    """A task with two records, for what leaves it as it is."""
    task_id = stage.running_task(nodes[:3], rounds=3)
    stage.record(task_id, 1)
    stage.record(task_id, 2)
    return task_id


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(solana_account, "RESEND_S", 0.05)
    monkeypatch.setattr(solana_rpc, "BACKOFF_S", 0.001)


def test_an_event_of_the_same_program_elsewhere_is_not_ours(chain, stage):
    signer = chain.local.signer
    foreign = deploy(chain.local.rpc, signer, program=ELSEWHERE)
    connector = type(stage.connector)([chain.local.rpc], foreign, signer)
    node, key = new_node(), digest(3)
    theirs = type(stage)(connector)
    signature = theirs.registration(node, sealing_key=key)
    write = Instructions(Accounts(ELSEWHERE), signer.public_key)
    ours = Instructions(Accounts(PROGRAM_ID), signer.public_key)
    # In one transaction with an instruction to ours, so that it is among our transactions.
    root = "0x" + secrets.token_hex(32)
    pay(
        chain,
        signer,
        [write.register(node.address, key, FAR_FUTURE, signature), ours.anchor(root, 3)],
    )
    head = stage.connector.head_block()
    (event,) = stage.connector.events(head, head)
    assert (event.name, event.values["root"]) == ("receipts_anchored", root)
    assert node.address not in {known.node for known in stage.connector.nodes()}
    assert stage.connector.registered_key(node.address) is None
    assert [event.name for event in connector.events(head, head)] == ["node_registered"]
    assert [known.node for known in connector.nodes()] == [node.address]


def test_lamports_at_a_place_before_its_account_do_not_make_one(chain, stage):
    node = new_node()
    place = Accounts(PROGRAM_ID).node(node.address)
    payer = Pubkey(chain.local.signer.public_key)
    gift = TransferParams(from_pubkey=payer, to_pubkey=place, lamports=10**7)
    pay(chain, chain.local.signer, [transfer(gift)])
    assert stage.connector.registered_key(node.address) is None
    assert stage.connector.registration_nonce(node.address) == 0
    key = stage.register(node)
    assert stage.connector.registered_key(node.address) == key


def changed_data(position, value):
    def change(result, _):
        data = bytearray(base64.b64decode(result["value"]["data"][0]))
        data[position] ^= value
        result["value"]["data"][0] = base64.b64encode(data).decode()

    return change


def on_account(place, change):
    """Change what is told of one account only."""
    return lambda result, params: change(result, params) if params[0] == str(place) else None


def set_value(**changes):
    return lambda result, _: result["value"].update(changes)


IDENTITY_LIES = {
    "genesis hash": ("getGenesisHash", lambda *_: str(Hash(b"\x05" * 32))),
    "no genesis hash": ("getGenesisHash", lambda *_: 5),
    "other code": ("getAccountInfo", on_account(PROGRAM_ID, changed_data(100, 1))),
    "no program": ("getAccountInfo", on_account(PROGRAM_ID, set_value(executable=False))),
    "another loader": ("getAccountInfo", on_account(PROGRAM_ID, set_value(owner=str(ELSEWHERE)))),
    "nothing there": ("getAccountInfo", lambda result, _: {**result, "value": None}),
    "chain id": ("getAccountInfo", on_account(AT.config, changed_data(8, 1))),
    "node registry": ("getAccountInfo", on_account(AT.config, changed_data(20, 1))),
    "data registry": ("getAccountInfo", on_account(AT.config, changed_data(75, 1))),
    "config of another": ("getAccountInfo", on_account(AT.config, set_value(owner=str(ELSEWHERE)))),
    "no config": (
        "getAccountInfo",
        on_account(AT.config, lambda result, _: {**result, "value": None}),
    ),
}


@pytest.mark.parametrize("lie", IDENTITY_LIES)
def test_an_endpoint_that_serves_something_else_is_noticed_before_use(chain, lie):
    lying = Lying(chain.local.rpc, *IDENTITY_LIES[lie])
    with pytest.raises(WrongChain):
        SolanaReader([lying], chain.deployment).check()
    with pytest.raises(WrongChain):
        SolanaReader([lying], chain.deployment).registered_key(new_node().address)


def test_a_deployment_whose_parts_do_not_belong_together_is_refused(chain):
    other = deployment_at(bytes.fromhex(chain.deployment.genesis_hash[2:]), ELSEWHERE)
    for change in (
        {"chain_id": chain.deployment.chain_id + 1},
        {"node_registry": other.node_registry},
        {"receipt_registry": other.receipt_registry},
        {"program": str(ELSEWHERE)},
    ):
        pinned = chain.deployment.model_copy(update=change)
        with pytest.raises(WrongChain):
            SolanaReader([chain.local.rpc], pinned).check()


def drop(place):
    return lambda result, _: result.pop(place) and None


def other_log(result, _):
    result["meta"]["logMessages"] = ["Program data: AgE="]


def flipped_event(result, _):
    logs = result["meta"]["logMessages"]
    for place, words in enumerate(logs):
        if words.startswith("Program data: "):
            data = bytearray(base64.b64decode(words.removeprefix("Program data: ")))
            data[60] ^= 1
            logs[place] = "Program data: " + base64.b64encode(data).decode()


def flipped_transaction(result, _):
    raw = bytearray(base64.b64decode(result["transaction"][0]))
    raw[-1] ^= 1
    result["transaction"][0] = base64.b64encode(raw).decode()


HISTORY_LIES = {
    "a record less": ("getSignaturesForAddress", drop(0)),
    "a first record less": ("getSignaturesForAddress", drop(1)),
    "records in another order": ("getSignaturesForAddress", lambda result, _: result[::-1]),
    "records that failed": (
        "getSignaturesForAddress",
        lambda result, _: [{**entry, "err": "Failed"} for entry in result],
    ),
    "records twice": (
        "getSignaturesForAddress",
        lambda result, _: [entry for entry in result for _ in range(2)],
    ),
    "no list": ("getSignaturesForAddress", lambda *_: {"a": 1}),
    "no signatures": ("getSignaturesForAddress", lambda *_: [{"signature": "xx", "slot": 1}]),
    "slots that are none": (
        "getSignaturesForAddress",
        lambda result, _: [{**entry, "slot": "1"} for entry in result],
    ),
    "other slots": (
        "getSignaturesForAddress",
        lambda result, _: [{**entry, "slot": entry["slot"] - 1} for entry in result],
    ),
    "no log": ("getTransaction", lambda result, _: result["meta"].update(logMessages=[])),
    "a log of nobody": ("getTransaction", other_log),
    "a log that is none": ("getTransaction", lambda result, _: result["meta"].pop("logMessages")),
    "a log of numbers": (
        "getTransaction",
        lambda r, _: r["meta"].update(logMessages=[1]),
    ),
    "another digest": ("getTransaction", flipped_event),
    "another transaction": ("getTransaction", flipped_transaction),
    "no transaction": ("getTransaction", lambda result, _: result.update(transaction="x")),
    "a transaction that failed": ("getTransaction", lambda r, _: r["meta"].update(err="Failed")),
    "another slot": ("getTransaction", lambda result, _: result.update(slot=1)),
    "no cost": ("getTransaction", lambda r, _: r["meta"].update(computeUnitsConsumed="many")),
    "no block's hash": ("getBlock", lambda result, _: result.update(blockhash="0x12")),
    "no block": ("getBlock", lambda *_: []),
    "another head": ("getAccountInfo", changed_data(140, 1)),
    "another task": ("getAccountInfo", changed_data(10, 1)),
    "a shorter account": ("getAccountInfo", set_value(data=["", "base64"])),
    "another encoding": ("getAccountInfo", set_value(data=["", "base58"])),
    "another kind of account": ("getAccountInfo", changed_data(0, 1)),
    "another owner": ("getAccountInfo", set_value(owner=str(ELSEWHERE))),
}


@pytest.mark.parametrize("lie", HISTORY_LIES)
def test_an_endpoint_that_lies_about_records_is_noticed(chain, told, lie):
    honest = SolanaReader([chain.local.rpc], chain.deployment)
    assert len(honest.round_records(told)) == 2
    method, change = HISTORY_LIES[lie]
    # An endpoint that was believed once begins to lie.
    telling = Lying(chain.local.rpc, "", None)
    reader = SolanaReader([telling], chain.deployment)
    reader.check()
    telling._method, telling._change = method, change
    with pytest.raises(WrongChain):
        reader.round_records(told)


def test_an_endpoint_that_shows_another_transactions_bytes_is_noticed(chain, told):
    seen = []

    def swapped(result, _):
        seen.append(result["transaction"])
        result["transaction"] = seen[0]

    lying = Lying(chain.local.rpc, "getTransaction", swapped)
    with pytest.raises(WrongChain, match="another transaction"):
        SolanaReader([lying], chain.deployment).round_records(told)


def test_a_false_head_in_the_last_record_is_noticed(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])
    stage.record(task_id, 1)

    def other_head(result, _):
        logs = result["meta"]["logMessages"]
        for place, words in enumerate(logs):
            if not words.startswith("Program data: Bw"):  # the tag of a record
                continue
            data = bytearray(base64.b64decode(words.removeprefix("Program data: ")))
            data[-1] ^= 1
            logs[place] = "Program data: " + base64.b64encode(data).decode()

    lying = Lying(chain.local.rpc, "getTransaction", other_head)
    with pytest.raises(WrongChain, match="head"):
        SolanaReader([lying], chain.deployment).round_records(task_id)


def new_signature():
    return str(Signature(secrets.token_bytes(64)))


def test_a_list_without_an_end_is_left(chain, told, monkeypatch):
    first = chain.ask("getSignaturesForAddress", str(AT.task(told)), {"limit": 3})
    first = [{**each, "slot": first[0]["slot"]} for each in first]
    monkeypatch.setattr(solana_history, "PAGE", 3)
    monkeypatch.setattr(solana_history.SolanaHistory, "_read", lambda *_: None)
    again = Lying(chain.local.rpc, "getSignaturesForAddress", lambda *_: first)
    with pytest.raises(WrongChain, match="twice"):
        SolanaReader([again], chain.deployment).events(0, 10**6)
    invented = Lying(
        chain.local.rpc,
        "getSignaturesForAddress",
        lambda *_: [{**each, "signature": new_signature()} for each in first],
    )
    monkeypatch.setattr(solana_history, "MAX_LISTED", 10)
    with pytest.raises(WrongChain, match="more than 10"):
        SolanaReader([invented], chain.deployment).events(0, 10**6)


def test_history_is_read_page_by_page(chain, told, monkeypatch):
    whole = SolanaReader([chain.local.rpc], chain.deployment)
    monkeypatch.setattr(solana_history, "PAGE", 2)
    paged = SolanaReader([chain.local.rpc], chain.deployment)
    assert paged.events(0, 10**6) == whole.events(0, 10**6)
    assert paged.round_records(told) == whole.round_records(told)


def test_events_in_another_order_are_noticed(chain, told):
    shuffled = Lying(chain.local.rpc, "getSignaturesForAddress", lambda result, _: result[::-1])
    with pytest.raises(WrongChain, match="order"):
        SolanaReader([shuffled], chain.deployment).events(0, 10**6)


def test_a_listed_transaction_that_nobody_has_is_no_answer(chain, told):
    pruned = Lying(chain.local.rpc, "getTransaction", lambda *_: None)
    pruned.answer = lambda asked: (
        {"jsonrpc": "2.0", "id": 1, "result": None}
        if asked["method"] == "getTransaction"
        else chain.local.rpc.answer(asked)
    )
    with pytest.raises(ChainUnavailable, match="does not have it"):
        SolanaReader([pruned], chain.deployment).round_records(told)


def test_a_roster_with_a_member_less_is_noticed(chain, stage, nodes):
    task_id = stage.open_task(nodes[:3])
    for place in range(3):
        hiding = Lying(chain.local.rpc, "getSignaturesForAddress", drop(place))
        with pytest.raises(WrongChain, match="roster"):
            SolanaReader([hiding], chain.deployment).members(task_id)


def test_a_version_less_of_a_dataset_is_noticed(chain, stage, nodes):
    node = nodes[2]
    for version in (1, 2):
        stage.publish(node, version)
    for place in range(2):
        hiding = Lying(chain.local.rpc, "getSignaturesForAddress", drop(place))
        reader = SolanaReader([hiding], chain.deployment)
        with pytest.raises(WrongChain, match="versions"):
            reader.data_commitments(node.address, digest(50))


SENDING_LIES = {
    "no units": ("simulateTransaction", lambda r, _: r["value"].update(unitsConsumed=None)),
    "endless units": (
        "simulateTransaction",
        lambda r, _: r["value"].update(unitsConsumed=2**30),
    ),
    "no outcome": ("simulateTransaction", lambda *_: {}),
    "no blockhash": ("getLatestBlockhash", lambda r, _: r["value"].update(blockhash="0x")),
    "no height": ("getLatestBlockhash", lambda r, _: r["value"].pop("lastValidBlockHeight")),
    "no fees": ("getRecentPrioritizationFees", lambda *_: [{}]),
    "no statuses": ("getSignatureStatuses", lambda r, _: r.update(value=[])),
    "a status of nothing": ("getSignatureStatuses", lambda r, _: r.update(value=[{}])),
}


@pytest.mark.parametrize("lie", SENDING_LIES)
def test_an_endpoint_that_answers_nonsense_stops_what_is_sent(chain, stage, nodes, lie):
    lying = Lying(chain.local.rpc, *SENDING_LIES[lie])
    with pytest.raises(WrongChain):
        chain.connector(lying).anchor_receipts("0x" + secrets.token_hex(32), 1)
