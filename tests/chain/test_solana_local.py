import base64
import hashlib
import secrets
from threading import Thread

import pytest
from chain_stage import digest
from solana_stage import open_stage, request
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from twopm_flower.chain.solana_local import (
    DATABASE,
    SolanaLocal,
    SolanaProcess,
    open_read_only,
)
from twopm_flower.chain.solana_node import VALID_BLOCKS
from twopm_flower.chain.solana_program import PROGRAM_ID
from twopm_flower.chain.solana_reader import SolanaReader
from twopm_flower.chain.solana_rpc import SolanaRpc
from twopm_flower.chain.solana_store import SolanaStore
from twopm_flower.errors import ChainError, ChainUnavailable

BASE64 = {"encoding": "base64"}
SOL = 10**9


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = open_stage(tmp_path_factory.mktemp("solana") / "chain")
    with chain.local:
        yield chain


@pytest.fixture
def receiver():
    return Pubkey(secrets.token_bytes(32))


def payment(chain, receiver, lamports=SOL, *, blockhash=None, price=None):
    """Return a signed transfer from the funded account, and its signature."""
    payer = Pubkey(chain.local.signer.public_key)
    recent = blockhash or chain.ask("getLatestBlockhash")["value"]["blockhash"]
    odd = secrets.randbelow(2**20) if price is None else price
    pay = transfer(TransferParams(from_pubkey=payer, to_pubkey=receiver, lamports=lamports))
    message = Message.new_with_blockhash(
        [set_compute_unit_price(odd), pay], payer, Hash.from_string(recent)
    )
    signature = Signature(chain.local.signer.sign_solana_message(bytes(message)))
    return VersionedTransaction.populate(message, [signature]), str(signature)


def encoded(transaction):
    return base64.b64encode(bytes(transaction)).decode()


def send(chain, transaction, **options):
    return chain.local.rpc.answer(
        request("sendTransaction", encoded(transaction), {**BASE64, **options})
    )


def balance(chain, key):
    return chain.ask("getBalance", str(key))["value"]


def test_a_block_follows_from_the_one_before_and_its_transaction(chain, receiver):
    transaction, signature = payment(chain, receiver)
    assert send(chain, transaction)["result"] == signature
    slot = chain.ask("getSlot")
    options = {"transactionDetails": "signatures"}
    block, parent = (chain.ask("getBlock", number, options) for number in (slot, slot - 1))
    chained = (
        bytes(Hash.from_string(parent["blockhash"]))
        + slot.to_bytes(8, "little")
        + bytes(Signature.from_string(signature))
    )
    assert block["blockhash"] == str(Hash(hashlib.sha256(chained).digest()))
    assert block["previousBlockhash"] == parent["blockhash"]
    assert block["signatures"] == [signature]
    assert balance(chain, receiver) == SOL


def test_a_transaction_takes_effect_once(chain, receiver):
    transaction, _ = payment(chain, receiver)
    send(chain, transaction)
    again = send(chain, transaction)["error"]
    assert again["data"]["err"] == "AlreadyProcessed"
    send(chain, transaction, skipPreflight=True)
    assert balance(chain, receiver) == SOL
    other, _ = payment(chain, receiver)
    send(chain, other)
    assert balance(chain, receiver) == 2 * SOL


def test_an_expired_or_unknown_blockhash_is_refused(chain, receiver):
    old = chain.ask("getLatestBlockhash")["value"]
    last, _ = payment(chain, receiver, blockhash=old["blockhash"])
    for _ in range(VALID_BLOCKS - 1):
        chain.ask("requestAirdrop", str(receiver), SOL)
    assert chain.ask("isBlockhashValid", old["blockhash"])["value"] is True
    assert chain.ask("getBlockHeight") == old["lastValidBlockHeight"] - 1
    assert "result" in send(chain, last)
    assert chain.ask("isBlockhashValid", old["blockhash"])["value"] is False
    before = chain.ask("getSlot")
    for blockhash in (old["blockhash"], str(Hash(b"\x01" * 32))):
        late, _ = payment(chain, receiver, blockhash=blockhash)
        assert send(chain, late)["error"]["data"]["err"] == "BlockhashNotFound"
        send(chain, late, skipPreflight=True)
    assert chain.ask("getSlot") == before


def test_a_false_signature_is_refused(chain, receiver):
    transaction, _ = payment(chain, receiver)
    forged = VersionedTransaction.populate(transaction.message, [Signature(b"\x01" * 64)])
    assert send(chain, forged)["error"]["data"]["err"] == "SignatureFailure"
    assert balance(chain, receiver) == 0


def test_what_would_fail_costs_nothing_unless_that_is_asked_for(chain, receiver):
    payer = Pubkey(chain.local.signer.public_key)
    had = balance(chain, payer)
    transaction, signature = payment(chain, receiver, lamports=10**17)
    error = send(chain, transaction)["error"]
    assert error["code"] == -32002
    assert error["data"]["err"] == {"InstructionError": [1, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in error["data"]["logs"])
    assert balance(chain, payer) == had
    assert send(chain, transaction, skipPreflight=True)["result"] == signature
    (status,) = chain.ask("getSignatureStatuses", [signature])["value"]
    assert status["err"] == error["data"]["err"]
    assert balance(chain, payer) < had


def test_a_write_that_fails_leaves_the_chain_as_it_was(chain, receiver):
    store = chain.local._node.store
    before = chain.ask("getSlot"), balance(chain, receiver)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    transaction, _ = payment(chain, receiver)
    try:
        for _ in range(100):  # until what is free in the last pages is used up
            answer = send(chain, transaction)
            if "error" in answer:
                break
            before = chain.ask("getSlot"), balance(chain, receiver)
            transaction, _ = payment(chain, receiver)
        assert "full" in answer["error"]["message"]
        assert (chain.ask("getSlot"), balance(chain, receiver)) == before
    finally:
        store._connection.execute("PRAGMA max_page_count = 1000000")
    assert "result" in send(chain, transaction)
    assert balance(chain, receiver) == before[1] + SOL


def test_addresses_tell_their_transactions_page_by_page(chain, receiver):
    sent = [chain.ask("requestAirdrop", str(receiver), SOL) for _ in range(5)]
    newest = [entry["signature"] for entry in chain.ask("getSignaturesForAddress", str(receiver))]
    assert newest == sent[::-1]

    def page(**options):
        found = chain.ask("getSignaturesForAddress", str(receiver), options)
        return [entry["signature"] for entry in found]

    assert page(limit=2) == newest[:2]
    assert page(limit=2, before=newest[1]) == newest[2:4]
    assert page(until=newest[3]) == newest[:3]
    assert page(before=newest[0], until=newest[2]) == newest[1:2]


def test_a_simulation_changes_nothing_and_needs_no_signature(chain, receiver):
    transaction, _ = payment(chain, receiver)
    unsigned = VersionedTransaction.populate(transaction.message, [Signature.default()])
    before = chain.ask("getSlot")
    outcome = chain.ask("simulateTransaction", encoded(unsigned), BASE64)["value"]
    assert outcome["err"] is None
    assert outcome["unitsConsumed"] > 0
    checked = chain.ask("simulateTransaction", encoded(unsigned), {**BASE64, "sigVerify": True})
    assert checked["value"]["err"] == "SignatureFailure"
    assert (chain.ask("getSlot"), balance(chain, receiver)) == (before, 0)


HOSTILE = {
    "no method": ("getNothing",),
    "too few parameters": ("getAccountInfo",),
    "too many parameters": ("getHealth", 1, 2),
    "no key": ("getBalance", "0x12"),
    "a key that is a number": ("getBalance", 5),
    "no hash": ("isBlockhashValid", "0x12"),
    "options that are none": ("getSlot", []),
    "no level": ("getSlot", {"commitment": "certain"}),
    "another encoding": ("getAccountInfo", str(PROGRAM_ID), {"encoding": "base58"}),
    "no transaction": ("sendTransaction", "AAAA", BASE64),
    "no base64": ("sendTransaction", "é!", BASE64),
    "too large a transaction": (
        "sendTransaction",
        base64.b64encode(bytes(2000)).decode(),
        BASE64,
    ),
    "no signature": ("getTransaction", "1" * 10, BASE64),
    "too many statuses": ("getSignatureStatuses", ["1"] * 1000),
    "too many accounts": ("getMultipleAccounts", [str(PROGRAM_ID)] * 101, BASE64),
    "a limit of nothing": ("getSignaturesForAddress", str(PROGRAM_ID), {"limit": 0}),
    "a negative slot": ("getBlock", -1, {"transactionDetails": "none"}),
    "a slot that is true": ("getBlock", True, {"transactionDetails": "none"}),
    "a slot to come": ("getBlock", 10**12, {"transactionDetails": "none"}),
    "a huge number": ("getBlock", 2**70, {"transactionDetails": "none"}),
    "a huge account": ("getMinimumBalanceForRentExemption", 2**40),
    "a huge gift": ("requestAirdrop", str(PROGRAM_ID), 2**63),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_request_that_makes_no_sense_gets_an_error(chain, attack):
    method, *parameters = HOSTILE[attack]
    answer = chain.local.rpc.answer(request(method, *parameters))
    assert answer["error"]["code"] in {-32601, -32602, -32004}
    assert "internal" not in answer["error"]["message"]
    assert chain.ask("getHealth") == "ok"


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_a_broken_transaction_gets_an_error_and_no_block(chain, receiver, position):
    transaction, _ = payment(chain, receiver)
    raw = bytearray(bytes(transaction))
    raw[position % len(raw)] ^= 0xFF
    before = chain.ask("getSlot")
    broken = base64.b64encode(raw).decode()
    assert "error" in chain.local.rpc.answer(request("sendTransaction", broken, BASE64))
    assert chain.ask("getSlot") == before


def test_a_folder_belongs_to_one_process_and_can_be_read_meanwhile(chain):
    stage, folder = chain.stage, chain.folder
    task_id = stage.create()
    with pytest.raises(ChainError, match="a local Solana chain"):
        SolanaLocal(folder)
    offline = SolanaReader([open_read_only(folder)], chain.deployment)
    assert offline.task(task_id) == stage.state(task_id)
    refusal = open_read_only(folder).answer(request("requestAirdrop", str(PROGRAM_ID), 1))
    assert "not available" in refusal["error"]["message"]


def test_every_chain_is_another(tmp_path):
    first, second = (open_stage(tmp_path / name) for name in ("first", "second"))
    with first.local, second.local:
        assert first.deployment.chain_id != second.deployment.chain_id
        assert first.deployment.genesis_hash != second.deployment.genesis_hash


def test_what_is_no_chain_is_not_opened(tmp_path):
    with pytest.raises(ChainError, match="no local Solana chain"):
        open_read_only(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"something else, and long enough to be read" * 50)
    with pytest.raises(ChainError):
        SolanaStore(tmp_path / DATABASE, read_only=True)


def test_all_state_is_there_after_it_was_opened_again(tmp_path):
    chain = open_stage(tmp_path / "chain")
    nodes = chain.stage.registered_nodes(2)
    task_id = chain.stage.running_task(nodes)
    chain.stage.record(task_id, 1)
    before = chain.stage.state(task_id), chain.stage.connector.events(0, 10**6)
    chain.local.close()
    with SolanaLocal(tmp_path / "chain") as again:
        chain.local = again
        connector = chain.connector()
        assert (connector.task(task_id), connector.events(0, 10**6)) == before
        chain.stage.connector = connector
        assert chain.stage.record(task_id, 2).round == 2
        assert connector.finalisation(task_id) is None
        assert connector.task(task_id).terms_digest == digest(77)


@pytest.mark.slow
def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(tmp_path):
    answered = []

    def ask_for_more(url):
        rpc = SolanaRpc([url], None)
        receiver = str(Pubkey(secrets.token_bytes(32)))
        while True:
            try:
                answered.append(rpc.ask("requestAirdrop", receiver, SOL))
            except ChainUnavailable:
                return

    with SolanaProcess(tmp_path / "chain") as process:
        for round_number in range(1, 4):
            threads = [Thread(target=ask_for_more, args=(process.url,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            while len(answered) < 40 * round_number:
                threads[0].join(0.005)
            process.kill()
            for thread in threads:
                thread.join()
            process.start()
            rpc = SolanaRpc([process.url], None)
            statuses = [rpc.ask("getSignatureStatuses", [name])["value"][0] for name in answered]
            assert all(status is not None for status in statuses)
            slots = rpc.ask("getBlocks", 0)
            assert slots == list(range(len(slots)))
            # A block may have been made of which nobody was told any more.
            assert len(slots) - 1 <= len(answered) + 3 * round_number
