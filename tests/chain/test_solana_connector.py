import base64
import secrets

import pytest
from chain_stage import digest, refused
from solana_stage import (
    Lying,
    SolanaStage,
    open_stage,
    pay,
    request,
)
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from twopm_flower.chain import solana_account, solana_rpc
from twopm_flower.chain.calls import (
    AttestCall,
    FinaliseCall,
    Joining,
    RoundCall,
    SignedTransaction,
)
from twopm_flower.chain.json_rpc import RpcError, failure
from twopm_flower.chain.solana import SolanaBackend, deploy
from twopm_flower.chain.solana_account import MAX_PRICE
from twopm_flower.chain.solana_identity import Accounts, deployment_at
from twopm_flower.chain.solana_local import SolanaLocal
from twopm_flower.chain.solana_program import PROGRAM_ID
from twopm_flower.chain.solana_state import read_tally
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    ConfigError,
    RecordConflict,
    TransactionReverted,
    WrongChain,
)
from twopm_flower.signer.ed25519 import LocalSolanaSigner

AT = Accounts(PROGRAM_ID)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = open_stage(tmp_path_factory.mktemp("solana") / "chain")
    with chain.local:
        yield chain


@pytest.fixture(scope="module")
def stage(chain):
    return chain.stage


@pytest.fixture(scope="module")
def nodes(stage):
    return stage.registered_nodes(12)


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


def round_call(task_id, number, attempt=1):
    return RoundCall(task_id, number, attempt, digest(100 + number), digest(200))


# Delivery


def test_signed_bytes_land_once_however_often_they_are_sent(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])
    connector = stage.connector
    signed = connector.sign_call(round_call(task_id, 1))
    assert signed.nonce is None
    assert connector.inclusion(signed.transaction_hash) is None
    assert connector.broadcast(signed)
    receipt = connector.wait(signed.transaction_hash)
    assert connector.broadcast(signed)
    where = connector.inclusion(signed.transaction_hash)
    assert (where.succeeded, where.final, where.block_number) == (True, True, receipt.block_number)
    assert len(connector.round_records(task_id)) == 1
    assert connector.already_done(round_call(task_id, 1)) == signed.transaction_hash


def test_a_transaction_whose_time_is_over_is_given_up_and_another_signed(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])
    connector = stage.connector
    late = connector.sign_call(round_call(task_id, 1))
    landed = connector.sign_call(round_call(task_id, 1))
    connector.broadcast(landed)
    receiver = str(Pubkey(secrets.token_bytes(32)))
    assert connector.broadcast(connector.sign_call(round_call(task_id, 2)))
    while chain.ask("getBlockHeight") <= late.expires_at:
        chain.ask("requestAirdrop", receiver, 10**9)
    assert not connector.broadcast(late)
    assert connector.broadcast(landed)
    assert connector.inclusion(late.transaction_hash) is None


def test_a_replacement_bids_at_least_an_eighth_more_up_to_a_limit(stage, nodes):
    task_id = stage.running_task(nodes[:2])
    connector = stage.connector
    signed = connector.sign_call(round_call(task_id, 1))
    for _ in range(5):
        bumped = connector.sign_call(round_call(task_id, 1), replacing=signed)
        assert bumped.fee * 8 >= signed.fee * 9
        assert bumped.transaction_hash != signed.transaction_hash
        signed = bumped
    dear = SignedTransaction(raw=b"", transaction_hash="", fee=MAX_PRICE)
    with pytest.raises(ChainError, match="limit"):
        connector.sign_call(round_call(task_id, 1), replacing=dear)
    # Both may reach a block, and only one of them takes effect.
    first = connector.sign_call(round_call(task_id, 1))
    assert connector.broadcast(signed)
    with refused("AlreadyRecorded"):
        connector.broadcast(first)


def test_the_usual_price_of_a_busy_cluster_is_paid(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])
    fees = [{"slot": n, "prioritizationFee": fee} for n, fee in enumerate([0, 70_000, 10**9])]
    busy = Lying(chain.local.rpc, "getRecentPrioritizationFees", lambda *_: fees)
    signed = chain.connector(busy).sign_call(round_call(task_id, 1))
    assert 70_000 < signed.fee < 75_000
    fees[:] = [{"slot": 1, "prioritizationFee": 10**15}]
    assert chain.connector(busy).sign_call(round_call(task_id, 1)).fee <= MAX_PRICE


def test_what_nodes_drop_is_sent_until_it_lands(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])

    class Dropping:
        def __init__(self):
            self.sent = []

        def answer(self, asked):
            if asked["method"] == "sendTransaction":
                self.sent.append(asked["params"][0])
                if len(self.sent) < 4:
                    raw = base64.b64decode(asked["params"][0])
                    signature = str(VersionedTransaction.from_bytes(raw).signatures[0])
                    return {"jsonrpc": "2.0", "id": 1, "result": signature}
            return chain.local.rpc.answer(asked)

    dropping = Dropping()
    chain.connector(dropping).record_round(task_id, 1, 1, digest(1), digest(2))
    assert len(dropping.sent) == 4
    assert len(set(dropping.sent)) == 1


def test_what_expired_on_its_way_is_signed_anew(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])

    class Forgetting:
        """Refuses the first transaction as too old, as a cluster does that came to a halt."""

        def __init__(self):
            self.sent = []

        def answer(self, asked):
            method = asked["method"]
            if method == "sendTransaction":
                self.sent.append(asked["params"][0])
            if method == "sendTransaction" and len(set(self.sent)) == 1:
                old = RpcError(-32002, "Blockhash not found", {"err": "BlockhashNotFound"})
                return failure(1, old)
            if method == "getBlockHeight" and len(self.sent) > 2:
                return {"jsonrpc": "2.0", "id": 1, "result": 10**9}
            return chain.local.rpc.answer(asked)

    forgetting = Forgetting()
    chain.connector(forgetting).record_round(task_id, 1, 1, digest(1), digest(2))
    # As long as it could still land, nothing else was signed.
    assert len(forgetting.sent) == 4
    assert len(set(forgetting.sent[:3])) == 1
    assert len(stage.connector.round_records(task_id)) == 1


def test_what_never_lands_is_said_so(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])

    class Swallowing:
        def answer(self, asked):
            if asked["method"] == "sendTransaction":
                return {"jsonrpc": "2.0", "id": 1, "result": str(Signature.default())}
            return chain.local.rpc.answer(asked)

    connector = chain.connector(Swallowing())
    connector._sender._receipt_timeout_s = 0.3
    with pytest.raises(ChainUnavailable, match="recordRound"):
        connector.record_round(task_id, 1, 1, digest(1), digest(2))


def test_a_transaction_that_failed_in_a_block_is_told_by_the_programs_error(chain, stage, nodes):
    task_id = stage.running_task(nodes[:2])
    write = Instructions(AT, chain.local.signer.public_key)
    beyond = write.record_round(task_id, 9, 1, digest(1), digest(2))
    name = pay(chain, chain.local.signer, [beyond], skipPreflight=True)
    transaction_hash = "0x" + bytes(Signature.from_string(name)).hex()
    assert stage.connector.inclusion(transaction_hash).succeeded is False
    with refused("TooManyRounds"):
        stage.connector.wait(transaction_hash)
    assert stage.connector.round_records(task_id) == ()


def test_there_are_no_nonces(stage, told):
    connector = stage.connector
    assert connector.next_nonce() is None
    with pytest.raises(ChainError, match="nonce 3"):
        connector.sign_filler(3)
    with pytest.raises(ChainError, match="nonce 3"):
        connector.sign_call(round_call(told, 3), nonce=3)


class OtherSigner:
    """Claims a key and signs with another."""

    def __init__(self, public_key):
        self.public_key = public_key

    def sign_solana_message(self, message):
        return bytes(Keypair().sign_message(message))


def test_a_signer_that_answers_another_keys_signature_is_noticed(chain, told):
    connector = chain.connector(signer=OtherSigner(chain.local.signer.public_key))
    with pytest.raises(ChainError, match="no signature of recordRound"):
        connector.sign_call(round_call(told, 3))


def test_an_account_without_lamports_is_told_that_it_cannot_pay(chain):
    poor = LocalSolanaSigner(secrets.token_bytes(32))
    with pytest.raises(TransactionReverted, match="cannot pay"):
        chain.connector(signer=poor).anchor_receipts(digest(5), 1)


def test_two_connectors_of_one_account_create_tasks_that_differ(chain, monkeypatch):
    first, second = chain.connector(), chain.connector()
    terms = {"rounds": 1, "min_contributors": 2, "quorum": 1, "max_samples": 9}
    known = first._accounts.one
    found = []

    def late(key, read):
        # While the first one is about to create its task, the second one does.
        value = known(key, read)
        if read.__name__ == "read_coordinator" and not found:
            found.append(second.create_task(digest(1), **terms)[0])
        return value

    monkeypatch.setattr(first._accounts, "one", late)
    task_id, _ = first.create_task(digest(1), **terms)
    assert found[0] != task_id
    assert first.task(task_id).coordinator == second.task(found[0]).coordinator == first.account


def test_nodes_join_several_at_a_time(chain, stage, nodes):
    task_id = stage.create()
    joinings = [
        Joining(node.address, **stage.membership(task_id, node, samples=place))
        for place, node in enumerate(nodes[:7], start=1)
    ]
    watched = Lying(chain.local.rpc, "", None)
    receipts = chain.connector(watched).admit(task_id, joinings)
    assert len(receipts) == sent_by(watched) == 3
    assert [member.samples for member in stage.connector.members(task_id)] == list(range(1, 8))
    assert chain.connector().admit(task_id, []) == ()
    with refused("AlreadyMember"):
        chain.connector().admit(task_id, joinings[:1])


# Statements in several transactions


def signed_model(stage, task_id, nodes):
    return {node.address: stage.model_signature(task_id, node) for node in nodes}


def sent_by(lying):
    return lying.asked.count("sendTransaction")


def test_a_small_quorum_fits_one_transaction_and_a_large_one_takes_several(chain, stage, nodes):
    for count, transactions in ((3, 1), (12, 4)):
        task_id = stage.finished_rounds(nodes[:count], rounds=1, quorum=count)
        watched = Lying(chain.local.rpc, "", None)
        ended = chain.connector(watched).finalise_task(
            task_id,
            stage.last_record(task_id),
            digest(7),
            digest(8),
            signed_model(stage, task_id, nodes[:count]),
        )
        assert ended.signers == count
        assert sent_by(watched) == transactions


def test_signatures_that_were_collected_before_a_crash_are_not_sent_again(chain, stage, nodes):
    task_id = stage.finished_rounds(nodes, rounds=1, quorum=12)
    last, signatures = stage.last_record(task_id), signed_model(stage, task_id, nodes)
    call = FinaliseCall(task_id, last, digest(7), digest(8), signatures)

    class Crashing(Lying):
        def answer(self, asked):
            if sent_by(self) >= 2:
                raise ConnectionError("cut")
            return super().answer(asked)

    with pytest.raises(ConnectionError):
        chain.connector(Crashing(chain.local.rpc, "", None)).sign_call(call)
    again = Lying(chain.local.rpc, "", None)
    connector = chain.connector(again)
    signed = connector.sign_call(call)
    assert sent_by(again) == 1
    # Signing it once more finds all of them there.
    assert connector.sign_call(call).transaction_hash != signed.transaction_hash
    assert sent_by(again) == 1
    connector.broadcast(signed)
    assert connector.wait(signed.transaction_hash).status == 1
    assert connector.already_done(call) == signed.transaction_hash
    other = FinaliseCall(task_id, last, digest(9), digest(8), signatures)
    with pytest.raises(RecordConflict):
        connector.already_done(other)


def test_a_large_quorum_that_attests_gets_its_tally_back(chain, stage, nodes):
    task_id = stage.running_task(nodes, rounds=2, quorum=12)
    stage.record(task_id, 1)
    attested = stage.attest(task_id, nodes)
    assert attested.signers == 12
    connector = stage.connector
    call = AttestCall(
        task_id,
        stage.last_record(task_id),
        digest(7),
        digest(8),
        signed_model(stage, task_id, nodes),
        1,
    )
    tally, _ = connector._statements._tally(call, connector.task(task_id))
    assert connector._accounts.one(tally, read_tally) is None


def test_a_large_quorum_with_a_stranger_in_it_is_refused(stage, nodes):
    task_id = stage.finished_rounds(nodes[:11], rounds=1, quorum=11)
    with refused("NotMember"):
        stage.finalise(task_id, nodes)


# Deployment


def test_a_program_is_initialised_once_and_then_found(chain):
    assert deploy(chain.local.rpc, chain.local.signer) == chain.deployment
    assert deploy(chain.local.rpc, LocalSolanaSigner(bytes(32))) == chain.deployment


def test_a_place_without_our_program_is_not_deployed_to(chain):
    with pytest.raises(ChainError, match=r"is no program.*docs/solana.md"):
        deploy(chain.local.rpc, chain.local.signer, program=Pubkey(b"\x77" * 32))
    with pytest.raises(ConfigError):
        SolanaBackend().deploy("http://127.0.0.1:9", chain.local.signer, program="nowhere")


def test_a_program_that_somebody_initialised_otherwise_is_refused(tmp_path):
    with SolanaLocal(tmp_path / "chain") as local:
        genesis = local.rpc.answer(request("getGenesisHash"))["result"]
        right = deployment_at(bytes(Hash.from_string(genesis)), PROGRAM_ID)
        wrong = right.model_copy(update={"chain_id": 7})
        write = Instructions(AT, local.signer.public_key)
        pay(SolanaStage(tmp_path, local, right, None), local.signer, [write.initialise(wrong)])
        with pytest.raises(WrongChain, match="initialised"):
            deploy(local.rpc, local.signer)
