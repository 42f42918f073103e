import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
import requests
from chain_stage import Stage, digest

from twopm_flower.chain.contracts import CONTRACTS
from twopm_flower.chain.devnet import Devnet, DevnetProcess, open_read_only, serve
from twopm_flower.chain.evm import EvmConnector, EvmReader, deploy
from twopm_flower.chain.json_rpc import MAX_BATCH, MAX_REQUEST_BYTES
from twopm_flower.errors import ChainError, ChainUnavailable


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with DevnetProcess(tmp_path_factory.mktemp("served")) as process:
        yield process


def ask(rpc, method, *parameters):
    return rpc.answer({"id": 1, "method": method, "params": list(parameters)})


def post(url, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    return requests.post(url, data=data, headers=headers, timeout=10)


CHAIN_ID = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}


def until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_each_chain_is_its_own(tmp_path):
    with Devnet(tmp_path / "a") as first, Devnet(tmp_path / "b") as second:
        assert 2**31 <= first.chain_id < 2**51
        assert first.chain_id != second.chain_id
        assert first.genesis_hash != second.genesis_hash
        assert first.signer.address != second.signer.address


def test_a_chain_is_reopened_as_it_was_left(tmp_path):
    with Devnet(tmp_path) as devnet:
        deployment = deploy(devnet.rpc, devnet.signer)
        stage = Stage(EvmConnector(devnet.rpc, deployment, devnet.signer))
        task_id = stage.create()
        task = stage.state(task_id)
        block = ask(devnet.rpc, "eth_getBlockByNumber", "latest", True)
    with Devnet(tmp_path) as devnet:
        connector = EvmConnector(devnet.rpc, deployment, devnet.signer)
        assert connector.task(task_id) == task
        assert ask(devnet.rpc, "eth_getBlockByNumber", "latest", True) == block
        assert Stage(connector).create() != task_id


def test_the_key_of_the_funded_account_is_private(tmp_path):
    with Devnet(tmp_path):
        assert (tmp_path / "account.key").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_opened_by_one_process_at_a_time(tmp_path):
    with Devnet(tmp_path), pytest.raises(ChainError, match="in use"):
        Devnet(tmp_path)
    with Devnet(tmp_path):
        pass


def test_a_chain_is_read_while_a_server_writes_to_it(served):
    deployment = deploy(served.url, served.signer)
    stage = Stage(EvmConnector(served.url, deployment, served.signer))
    reader = EvmReader(open_read_only(served.folder), deployment)
    task_id = stage.create()
    assert reader.task(task_id) == stage.state(task_id)
    stage.connector.cancel_task(task_id, "seen")
    assert reader.task(task_id).state == "cancelled"


def test_reading_changes_no_byte_even_where_nothing_may_be_written(tmp_path):
    with Devnet(tmp_path / "chain") as devnet:
        deployment = deploy(devnet.rpc, devnet.signer)
        task_id = Stage(EvmConnector(devnet.rpc, deployment, devnet.signer)).create()
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "chain.sqlite"
    shutil.copy(tmp_path / "chain" / "chain.sqlite", copy)
    before = copy.read_bytes()
    assert EvmReader(open_read_only(copy.parent), deployment).task(task_id).state == "open"
    assert copy.read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == ["chain.sqlite"]


def test_a_reader_cannot_write(tmp_path):
    with Devnet(tmp_path) as devnet:
        signer = devnet.signer
    answer = deploy_error(open_read_only(tmp_path), signer)
    assert "readonly" in answer


def deploy_error(provider, signer):
    with pytest.raises(ChainError) as error:
        deploy(provider, signer)
    return str(error.value)


def test_reading_nothing_says_so(tmp_path):
    with pytest.raises(ChainError, match="no embedded chain"):
        open_read_only(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_chain_is_refused(tmp_path):
    (tmp_path / "chain.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(ChainError, match="not an embedded chain"):
        open_read_only(tmp_path)


def test_a_chain_of_another_version_is_refused(tmp_path):
    with Devnet(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "chain.sqlite")
    connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(ChainError, match="99"):
        Devnet(tmp_path)


def test_old_states_are_not_made_up_from_the_latest(devnet, deployment):
    address = deployment.task_registry
    assert "error" in ask(devnet.rpc, "eth_getCode", address, "0x0")
    assert "result" in ask(devnet.rpc, "eth_getCode", address, "latest")


def test_the_newest_state_can_be_asked_for_while_a_block_is_mined(devnet, monkeypatch):
    monkeypatch.setattr(devnet._node, "head_number", iter(range(100, 200)).__next__)
    for name in ("latest", "pending"):
        assert "result" in ask(devnet.rpc, "eth_getBalance", devnet.signer.address, name)


def test_a_revert_comes_with_its_data(devnet, deployment):
    call = {"to": deployment.task_registry, "data": "0x" + "12345678"}
    error = ask(devnet.rpc, "eth_call", call, "latest")["error"]
    assert error["code"] == 3
    assert error["data"].startswith("0x")


@pytest.mark.parametrize(
    ("request_body", "code"),
    [
        (b"{", -32700),
        (b"[" * 100_000, -32700),
        ([], -32600),
        ([CHAIN_ID] * (MAX_BATCH + 1), -32600),
        (17, -32600),
        ({"id": 1}, -32600),
        ({"id": 1, "method": "eth_mine"}, -32601),
        ({"id": 1, "method": "eth_chainId", "params": {}}, -32602),
        ({"id": 1, "method": "eth_chainId", "params": [1]}, -32602),
        ({"id": 1, "method": "eth_getCode", "params": []}, -32602),
        ({"id": 1, "method": "eth_getCode", "params": ["0x12", "latest"]}, -32602),
        ({"id": 1, "method": "eth_getCode", "params": ["0x" + "00" * 20, "soon"]}, -32602),
        ({"id": 1, "method": "eth_getTransactionReceipt", "params": ["0x12"]}, -32602),
        ({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x12"]}, -32000),
        ({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x02c0"]}, -32000),
        ({"id": 1, "method": "eth_sendRawTransaction", "params": [7]}, -32602),
        ({"id": 1, "method": "eth_getLogs", "params": [[]]}, -32602),
    ],
)
def test_a_bad_request_gets_the_error_that_says_what_is_bad(served, request_body, code):
    assert post(served.url, request_body).json()["error"]["code"] == code
    assert "result" in post(served.url, CHAIN_ID).json()


def test_a_batch_is_answered_in_order(served):
    batch = [CHAIN_ID | {"id": 5}, {"id": 6, "method": "nothing"}, CHAIN_ID | {"id": 7}]
    answers = post(served.url, batch).json()
    assert [answer["id"] for answer in answers] == [5, 6, 7]
    assert ["result" in answer for answer in answers] == [True, False, True]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": "localhost:1"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_a_web_page_reaches_nothing(served, headers, status):
    assert post(served.url, CHAIN_ID, **headers).status_code == status


def test_a_request_beyond_all_measure_is_refused_unread(served):
    answer = requests.post(
        served.url,
        data=b"",
        headers={
            "Content-Type": "application/json",
            "Content-Length": str(MAX_REQUEST_BYTES + 1),
        },
        timeout=10,
    )
    assert answer.status_code == 413


def test_only_this_machine_is_served(served):
    assert served.url.startswith("http://127.0.0.1:")


def test_several_clients_at_once_all_get_their_transactions_mined(served):
    deployment = deploy(served.url, served.signer)
    connectors = [EvmConnector(served.url, deployment, served.signer) for _ in range(3)]
    tasks, troubles = [], []

    def create(connector):
        try:
            tasks.extend(Stage(connector).create() for _ in range(3))
        except ChainError as error:
            troubles.append(error)

    threads = [threading.Thread(target=create, args=(connector,)) for connector in connectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    assert len(set(tasks)) == 9


def test_logs_are_found_by_address_topic_and_block(served):
    deployment = deploy(served.url, served.signer)
    stage = Stage(EvmConnector(served.url, deployment, served.signer))
    wanted, other = stage.create(), stage.create()
    web3 = stage.connector._rpc.web3
    address = deployment.task_registry
    every = web3.eth.get_logs({"address": address, "fromBlock": 0})
    assert ["0x" + log["topics"][1].hex() for log in every] == [wanted, other]
    signature = every[0]["topics"][0]

    def found(**filters):
        logs = web3.eth.get_logs({"fromBlock": 0, **filters})
        return ["0x" + log["topics"][1].hex() for log in logs]

    assert found(address=address, topics=[None, wanted]) == [wanted]
    assert found(address=address, topics=[signature, [wanted, other]]) == [wanted, other]
    assert found(address=address, topics=[digest(3)]) == []
    assert found(address=deployment.node_registry) == []
    assert found(address=address, toBlock=every[0]["blockNumber"]) == [wanted]
    assert web3.eth.get_logs({"blockHash": every[1]["blockHash"]}) == [every[1]]


def test_a_burst_of_blocks_keeps_their_times_increasing(served):
    deployment = deploy(served.url, served.signer)
    stage = Stage(EvmConnector(served.url, deployment, served.signer))
    for _ in range(3):
        stage.create()
    web3 = stage.connector._rpc.web3
    head = web3.eth.block_number
    times = [web3.eth.get_block(number)["timestamp"] for number in range(head - 3, head + 1)]
    assert times == sorted(set(times))


def test_a_killed_chain_comes_back_with_everything_it_had_acknowledged(tmp_path):
    process = DevnetProcess(tmp_path).start()
    deployment = deploy(process.url, process.signer)
    stage = Stage(EvmConnector(process.url, deployment, process.signer))
    acknowledged = []

    def create_until_it_dies():
        try:
            while True:
                acknowledged.append(stage.create())
        except ChainUnavailable:
            pass

    thread = threading.Thread(target=create_until_it_dies)
    thread.start()
    until(lambda: len(acknowledged) >= 3)
    process.kill()
    thread.join()
    with DevnetProcess(tmp_path) as again:
        reader = EvmReader(again.url, deployment)
        assert all(reader.task(task_id).state == "open" for task_id in acknowledged)
        web3 = reader._rpc.web3
        blocks = [web3.eth.get_block(n) for n in range(web3.eth.block_number + 1)]
        assert all(b["parentHash"] == a["hash"] for a, b in pairwise(blocks))
        # Exactly the block that was being mined may be there without having been acknowledged.
        others = 1 + len(CONTRACTS)
        assert len(acknowledged) <= len(blocks) - others <= len(acknowledged) + 1
        Stage(EvmConnector(again.url, deployment, again.signer)).create()


@pytest.mark.slow
def test_the_server_ends_with_the_process_that_started_it(tmp_path):
    script = (
        "import pathlib, sys, time\n"
        "from twopm_flower.chain.devnet import DevnetProcess\n"
        "process = DevnetProcess(pathlib.Path(sys.argv[1])).start()\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        server = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    until(lambda: not running(server))
    with Devnet(tmp_path):
        pass


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has waited for yet has ended all the same.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_server_that_cannot_start_says_why(served, tmp_path):
    with pytest.raises(ChainUnavailable, match="in use"):
        DevnetProcess(served.folder).start()
    with pytest.raises(ChainError, match="cannot listen"):
        serve(tmp_path, port=served.port)


def test_a_module_in_the_working_folder_does_not_stand_in_for_the_chain(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('run from the working folder')\n")
    monkeypatch.chdir(tmp_path)
    with DevnetProcess(tmp_path / "chain") as process:
        assert process.chain_id >= 2**31


def test_a_file_is_no_folder_for_a_chain(tmp_path):
    file = tmp_path / "chain.toml"
    file.write_text("chain_id = 1")
    with pytest.raises(ChainError, match=r"no chain can be kept in .*chain\.toml: File exists"):
        Devnet(file)
    with pytest.raises(ChainError, match="Not a directory"):
        Devnet(file / "chain")
    assert file.read_text() == "chain_id = 1"
