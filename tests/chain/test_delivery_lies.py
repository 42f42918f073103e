"""Endpoints that lie, fail or lag: each ends well, or with an error that names the cause."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chain_stage import digest

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.evm import EvmConnector, EvmReader
from twopm_flower.chain.evm_failover import RETURN_AFTER_S
from twopm_flower.chain.evm_rpc import EvmRpc
from twopm_flower.chain.outbox import Outbox
from twopm_flower.errors import ChainUnavailable, WrongChain
from twopm_flower.records.chaining import round_head
from twopm_flower.records.digest import ZERO_DIGEST


class Proxy:
    """An endpoint between us and the chain that may change every answer, or break off."""

    def __init__(self, rpc):
        self._rpc, self.lie, self.is_down, self.asked = rpc, None, False, []

    def answer(self, request):
        self.asked.append(request["method"])
        if self.is_down:
            raise ConnectionError("down")
        answer = self._rpc.answer(request)
        if self.lie is not None and "result" in answer:
            answer["result"] = self.lie(request["method"], answer["result"])
        return answer


@pytest.fixture
def serve():
    """Serve a proxy over HTTP and return its address."""
    servers = []

    def start(proxy):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):  # the name that http.server looks for
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    answer = json.dumps(proxy.answer(json.loads(body))).encode()
                except ConnectionError:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def two(devnet, serve):
    proxies = [Proxy(devnet.rpc), Proxy(devnet.rpc)]
    return proxies, tuple(serve(proxy) for proxy in proxies)


def another_chain(method, result):
    return "0x1" if method == "eth_chainId" else result


def test_the_next_endpoint_is_asked_and_the_preferred_one_again_later(two, deployment):
    proxies, urls = two
    now = [0.0]
    rpc = EvmRpc(urls, pinned=deployment, clock=lambda: now[0])

    def ask():
        for proxy in proxies:
            proxy.asked.clear()
        with rpc.asking("the head") as web3:
            assert web3.eth.block_number > 0
        return rpc.name

    assert ask() == urls[0]
    proxies[0].is_down = True
    assert ask() == urls[1]
    assert "eth_chainId" in proxies[1].asked
    proxies[0].is_down = False
    # It stays where it is answered, and asks nobody else.
    assert ask() == urls[1]
    assert (proxies[0].asked, proxies[1].asked) == ([], ["eth_blockNumber"])
    now[0] += RETURN_AFTER_S
    assert ask() == urls[0]
    # Whatever came back has to show again which chain it is.
    assert "eth_chainId" in proxies[0].asked


def test_an_endpoint_of_another_chain_is_named_and_passed_over(two, deployment, caplog):
    proxies, urls = two
    proxies[0].lie = another_chain
    reader = EvmReader(urls, deployment)
    reader.check()
    assert reader.status().endpoint == urls[1]
    assert urls[0] in caplog.text
    assert "serves chain 1" in caplog.text
    assert set(proxies[0].asked) <= {"eth_chainId", "eth_getBlockByNumber"}


def test_the_error_names_every_endpoint_and_what_is_wrong_with_it(two, deployment):
    proxies, urls = two
    proxies[0].is_down = proxies[1].is_down = True
    with pytest.raises(ChainUnavailable) as down:
        EvmReader(urls, deployment).check()
    assert all(url in str(down.value) for url in urls)
    proxies[1].is_down, proxies[1].lie = False, another_chain
    with pytest.raises(WrongChain) as lied:
        EvmReader(urls, deployment).check()
    assert all(url in str(lied.value) for url in urls)
    assert "serves chain 1" in str(lied.value)


def test_an_endpoint_that_comes_back_as_another_chain_is_not_believed(two, deployment):
    proxies, urls = two
    reader = EvmReader(urls, deployment)
    reader.check()
    proxies[1].is_down = True
    reader.head_block()
    proxies[0].is_down = True
    with pytest.raises(ChainUnavailable):
        reader.head_block()
    proxies[0].is_down, proxies[0].lie = False, another_chain
    with pytest.raises(WrongChain):
        reader.head_block()


def test_records_are_delivered_while_endpoints_take_turns(two, deployment, stage, nodes, tmp_path):
    proxies, urls = two
    task_id = stage.running_task(nodes)
    outbox = Outbox(tmp_path / "o.sqlite")
    connector = EvmConnector(urls, deployment, stage.connector._sender._signer)
    outbox.enqueue(call := RoundCall(task_id, 1, 1, digest(5), digest(6)))

    def cut(method, result):
        # The transaction arrives, and its answer does not.
        if method == "eth_sendRawTransaction":
            proxies[0].is_down = True
            raise ConnectionError("cut")
        return result

    proxies[0].lie = cut
    assert outbox.deliver(connector) == 1
    assert connector.status().endpoint == urls[1]
    assert [r.manifest_digest for r in stage.connector.round_records(task_id)] == [
        call.manifest_digest
    ]
    outbox.close()


@pytest.fixture
def lying(devnet, deployment, stage):
    proxy = Proxy(devnet.rpc)
    return proxy, EvmConnector(proxy, deployment, stage.connector._sender._signer)


def test_a_receipt_whose_record_the_state_does_not_show_is_no_record(lying, stage, nodes, tmp_path):
    proxy, connector = lying
    other, task_id = stage.running_task(nodes), stage.running_task(nodes)
    stage.record(other, 1)
    [honest] = stage.connector.round_records(other)

    def forge(method, result):
        # Nothing is sent on; a stranger's receipt is shown under our hash.
        if method == "eth_getTransactionReceipt" and result is None:
            return proxy._rpc.answer(
                {"jsonrpc": "2.0", "id": 1, "method": method, "params": [honest.transaction_hash]}
            )["result"]
        return result

    send = proxy.answer

    def swallow(request):
        if request["method"] == "eth_sendRawTransaction":
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + "00" * 32}
        return send(request)

    proxy.lie, proxy.answer = forge, swallow
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.enqueue(RoundCall(task_id, 1, 1, digest(5), digest(6)))
    with pytest.raises(WrongChain, match="forged"):
        outbox.deliver(connector, receipt_timeout_s=0.2)

    def include(method, result):
        # The block is made to hold our hash as well: only the contract's state is left to ask.
        if method == "eth_getBlockByNumber" and result is not None:
            sent = [entry.transaction_hash for entry in outbox.pending()]
            return {**result, "transactions": [*result["transactions"], *sent]}
        return forge(method, result)

    proxy.lie = include
    with pytest.raises(WrongChain, match="receipts, but not what they stand for"):
        outbox.deliver(connector, receipt_timeout_s=0.2)
    assert len(outbox.pending()) == 1
    assert outbox.deliver(stage.connector) == 1
    assert len(stage.connector.round_records(task_id)) == 1
    outbox.close()


@pytest.mark.parametrize("hidden", ["round_recorded", "member_joined"])
def test_hidden_events_are_noticed_and_the_cursor_waits(
    lying, stage, nodes, tmp_path, monkeypatch, hidden
):
    _, connector = lying
    task_id = stage.running_task(nodes)
    stage.record(task_id, 1)
    stage.record(task_id, 2)
    first = connector.events(0, connector.head_block())
    target = next(e for e in first if e.name == hidden and e.values["task_id"] == task_id)
    whole = connector.events

    def without(first_block, last_block):
        return tuple(e for e in whole(first_block, last_block) if e != target)

    monkeypatch.setattr(connector, "events", without)
    told = []
    with EventStream(connector, tmp_path / "e.sqlite", blocks_at_once=5) as stream:
        with pytest.raises(WrongChain, match=f"hides events of task {task_id}"):
            read(stream, told)
        assert target not in told
        assert stream.cursor < target.block_number
        monkeypatch.setattr(connector, "events", whole)
        read(stream, told)
    assert sorted(told, key=place) == sorted(first, key=place)


def test_an_event_that_was_made_up_does_not_stop_the_stream_for_ever(
    lying, stage, nodes, tmp_path, monkeypatch
):
    _, connector = lying
    task_id = stage.running_task(nodes)
    stage.record(task_id, 1)
    whole = connector.events
    recorded = [
        event
        for event in whole(0, connector.head_block())
        if event.name == "round_recorded" and event.values["task_id"] == task_id
    ]
    [true] = recorded
    # Anybody can compute a head that follows.
    values = {**true.values, "updates_root": digest(666)}
    values["head"] = round_head(
        ZERO_DIGEST,
        task_id,
        1,
        1,
        manifest_digest=values["manifest_digest"],
        updates_root=values["updates_root"],
    )
    false = replace(true, values=values)

    def swapped(first_block, last_block):
        return tuple(false if e == true else e for e in whole(first_block, last_block))

    monkeypatch.setattr(connector, "events", swapped)
    told = []
    with EventStream(connector, tmp_path / "e.sqlite", retract_after=0) as stream:
        read(stream, told)
        assert false in told
        monkeypatch.setattr(connector, "events", whole)
        stage.record(task_id, 2)
        with pytest.raises(WrongChain, match=f"hides events of task {task_id}"):
            read(stream, told)
        heard = list(stream)
    assert [(item.retracted, item.event.values["head"]) for item in heard] == [
        (True, false.values["head"]),
        *((False, record.head) for record in stage.connector.round_records(task_id)),
    ]


def read(stream, told):
    for item in stream:
        told.append(item.event)
        stream.ack(item)


def place(event):
    return event.block_number, event.index
