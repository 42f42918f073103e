import json
import threading

import pytest
import requests
from chain_stage import Stage, digest, new_node

from twopm_flower.chain.devnet import Devnet, DevnetProcess
from twopm_flower.chain.evm import EvmConnector, EvmReader, deploy
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    TransactionReverted,
    WrongChain,
)


class Proxy:
    """An endpoint between connector and chain that a test may make lie."""

    def __init__(self, rpc):
        self.rpc = rpc
        self.lies = {}
        self.asked = []

    def answer(self, request):
        self.asked.append(request["method"])
        answer = self.rpc.answer(request)
        lie = self.lies.get(request["method"])
        return answer if lie is None else lie(request, answer)


def result(change):
    """A lie that changes a result."""

    def lie(_request, answer):
        return answer | {"result": change(json.loads(json.dumps(answer["result"])))}

    return lie


def failure(message):
    return lambda request, _answer: {
        "jsonrpc": "2.0",
        "id": request["id"],
        "error": {"code": -32000, "message": message},
    }


@pytest.fixture
def proxy(devnet):
    return Proxy(devnet.rpc)


@pytest.fixture
def between(proxy, deployment, devnet, stage):
    """The stage, seen through the proxy."""
    return Stage(EvmConnector(proxy, deployment, devnet.signer), dict(stage.keys))


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("eth_chainId", lambda _: "0x1", "chain id is 1"),
        ("eth_getBlockByNumber", lambda b: b | {"hash": digest(3)}, "first block is"),
        ("eth_getCode", lambda _: "0x", "code of"),
        ("eth_getCode", lambda code: code[:-2] + "00", "code of"),
    ],
)
def test_another_chain_is_not_believed(proxy, deployment, method, change, words):
    proxy.lies[method] = result(change)
    reader = EvmReader(proxy, deployment)
    with pytest.raises(WrongChain, match=words):
        reader.task(digest(1))
    assert "eth_call" not in proxy.asked


def test_nothing_is_sent_to_another_chain(proxy, deployment, devnet):
    proxy.lies["eth_chainId"] = result(lambda _: "0x1")
    connector = EvmConnector(proxy, deployment, devnet.signer)
    with pytest.raises(WrongChain):
        Stage(connector).create()
    assert "eth_sendRawTransaction" not in proxy.asked


def test_a_chain_with_the_same_id_and_another_first_block_is_not_believed(
    devnet, deployment, tmp_path
):
    lying = deployment.model_copy(update={"genesis_hash": digest(1)})
    with pytest.raises(WrongChain, match="first block"):
        EvmReader(devnet.rpc, lying).check()
    with Devnet(tmp_path) as other, pytest.raises(WrongChain, match="chain id"):
        EvmReader(other.rpc, deployment).check()


def test_contracts_in_each_others_place_are_not_believed(devnet, deployment):
    swapped = deployment.model_copy(
        update={
            "node_registry": deployment.task_registry,
            "task_registry": deployment.node_registry,
        }
    )
    with pytest.raises(WrongChain, match="NodeRegistry"):
        EvmReader(devnet.rpc, swapped).check()


def test_tasks_that_use_another_node_registry_are_not_believed(devnet, deployment):
    other = deploy(devnet.rpc, devnet.signer)
    mixed = deployment.model_copy(update={"node_registry": other.node_registry})
    with pytest.raises(WrongChain, match="node registry"):
        EvmReader(devnet.rpc, mixed).check()


def test_requests_are_tried_again_when_the_connection_breaks(deployment, monkeypatch, tmp_path):
    with DevnetProcess(tmp_path) as process:
        served = deploy(process.url, process.signer)
        reader = EvmReader(process.url, served)
        reader.check()
        post, broken = requests.Session.post, []

        def breaking(session, *arguments, **settings):
            if len(broken) < 2:
                broken.append(1)
                raise requests.ConnectionError
            return post(session, *arguments, **settings)

        monkeypatch.setattr(requests.Session, "post", breaking)
        assert reader.head_block() > 0
        assert len(broken) == 2


def test_hidden_members_are_noticed(between, proxy, nodes):
    task_id = between.open_task(nodes)
    assert len(between.connector.members(task_id)) == 3
    for hide in (lambda logs: logs[:-1], lambda logs: logs[1:], lambda logs: []):
        proxy.lies["eth_getLogs"] = result(hide)
        with pytest.raises(WrongChain, match="do not add up"):
            between.connector.members(task_id)


def test_hidden_or_altered_records_are_noticed(between, proxy, nodes):
    task_id = between.running_task(nodes)
    between.record(task_id, 1)
    between.record(task_id, 2)

    def altered(logs):
        data = logs[0]["data"]
        return [logs[0] | {"data": data[:70] + "ff" + data[72:]}, *logs[1:]]

    for lie in (lambda logs: logs[:-1], lambda logs: logs[1:], lambda logs: [], altered):
        proxy.lies["eth_getLogs"] = result(lie)
        with pytest.raises(WrongChain, match="do not add up"):
            between.connector.round_records(task_id)


def test_events_of_another_contract_or_task_do_not_count(between, proxy, nodes):
    task_id = between.running_task(nodes)
    between.record(task_id, 1)
    proxy.lies["eth_getLogs"] = result(
        lambda logs: [log | {"address": "0x" + "11" * 20} for log in logs]
    )
    assert between.connector.round_record(task_id, 1, 1) is None


def test_an_answer_that_makes_no_sense_is_ours_to_explain(between, proxy, nodes):
    task_id = between.create()
    for nonsense in ("0x", "0x1234", None, 7):
        proxy.lies["eth_call"] = result(lambda _, value=nonsense: value)
        with pytest.raises(ChainError):
            between.connector.task(task_id)


def test_a_refused_transaction_costs_nothing(stage, devnet, nodes):
    task_id = stage.create()
    before = stage.connector.head_block()
    with pytest.raises(TransactionReverted):
        stage.record(task_id, 1)
    assert stage.connector.head_block() == before


def test_a_transaction_that_reverts_once_mined_tells_why(between, proxy, nodes):
    """The gas estimate was a lie, so the refusal comes with the block."""
    task_id = between.create()
    proxy.lies["eth_estimateGas"] = lambda request, _answer: {
        "jsonrpc": "2.0",
        "id": request["id"],
        "result": hex(200_000),
    }
    with pytest.raises(TransactionReverted) as refusal:
        between.record(task_id, 1)
    assert refusal.value.error_name == "WrongState"


def test_sending_again_what_is_known_already_is_success(between, proxy, nodes):
    task_id = between.running_task(nodes)
    send = []

    def answered_twice(request, answer):
        send.append(request)
        return proxy.rpc.answer(request)

    proxy.lies["eth_sendRawTransaction"] = answered_twice
    assert between.record(task_id, 1).round == 1
    assert len(send) == 1
    assert len(between.connector.round_records(task_id)) == 1


def test_an_answer_lost_on_the_way_back_does_not_record_twice(between, proxy, nodes):
    """The chain took the transaction; we heard that its nonce was used."""
    task_id = between.running_task(nodes)
    proxy.lies["eth_sendRawTransaction"] = failure("nonce too low")
    assert between.record(task_id, 1).round == 1
    assert len(between.connector.round_records(task_id)) == 1


def test_a_stale_nonce_is_replaced(between, proxy, nodes):
    stale = []

    def once(request, answer):
        if not stale:
            stale.append(1)
            return answer | {"result": hex(int(answer["result"], 16) - 1)}
        return answer

    proxy.lies["eth_getTransactionCount"] = once
    assert between.state(between.create()).state == "open"
    assert stale


def test_a_receipt_is_not_awaited_for_ever(proxy, deployment, devnet):
    proxy.lies["eth_getTransactionReceipt"] = result(lambda _: None)
    connector = EvmConnector(proxy, deployment, devnet.signer, receipt_timeout_s=0.2)
    with pytest.raises(ChainUnavailable, match=r"not mined after 0\.2 s"):
        Stage(connector).create()


def test_an_account_without_money_is_told_so(devnet, deployment):
    beggar = EvmConnector(devnet.rpc, deployment, new_node())
    with pytest.raises(ChainError, match="cannot pay") as error:
        Stage(beggar).create()
    assert error.value.hint


def test_threads_of_one_connector_do_not_get_in_each_others_way(stage):
    made = []
    threads = [threading.Thread(target=lambda: made.append(stage.create())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 6


def test_bytes_whose_nonce_is_taken_are_known_to_be_dead(stage, nodes):
    from twopm_flower.chain.base import RoundCall

    task_id = stage.running_task(nodes)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    stage.create()
    assert stage.connector.broadcast(signed) is False
