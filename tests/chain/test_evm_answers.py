"""Endpoints of Ethereum's kind that answer nonsense, too much, or too slowly: our errors only."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from chain_stage import digest

from twopm_flower.chain import evm_rpc
from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.evm import EvmConnector, EvmReader
from twopm_flower.chain.evm_answers import checked
from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_worker import OutboxWorker
from twopm_flower.errors import ChainError, ChainUnavailable


class Liar:
    """Changes the answers to one method."""

    def __init__(self, rpc):
        self._rpc, self.method, self.change = rpc, None, None

    def answer(self, request):
        answer = self._rpc.answer(request)
        return self.change(answer) if request["method"] == self.method else answer


@pytest.fixture
def liar(devnet, deployment, stage):
    liar = Liar(devnet.rpc)
    connector = EvmConnector(
        liar, deployment, stage.connector._sender._signer, receipt_timeout_s=0.01
    )
    connector.check()
    return liar, connector


@pytest.fixture(scope="module")
def recorded(stage, nodes):
    task_id = stage.running_task(nodes)
    return task_id, stage.record(task_id, 1).transaction_hash


def result(value):
    return lambda answer: {**answer, "result": value}


def field(name, value):
    """Change a field of an object, or of each in a list."""

    def change(answer):
        told = answer["result"]
        if isinstance(told, list):
            return {**answer, "result": [{**each, name: value} for each in told]}
        return answer if told is None else {**answer, "result": {**told, name: value}}

    return change


OVERFLOW = "0x" + "f" * 17
EVERYWHERE = {
    "null": lambda _: None,
    "a list": lambda _: [],
    "no result": lambda answer: {"id": answer["id"]},
    "an error of no form": lambda _: {"error": 5},
    "an error without words": lambda _: {"error": {"code": 5}},
    "a number": result(5),
    "false hex": result("zz"),
    "below zero": result("-0x1"),
    "an empty object": result({}),
    "a list of null": result([None]),
}
LIES = [
    ("eth_blockNumber", result(None)),
    ("eth_blockNumber", result(OVERFLOW)),
    ("eth_estimateGas", result(OVERFLOW)),
    ("eth_getTransactionCount", result(OVERFLOW)),
    ("eth_maxPriorityFeePerGas", result(None)),
    ("eth_getBalance", result(None)),
    ("eth_call", result("0x05")),
    ("eth_getBlockByNumber", field("hash", None)),
    ("eth_getBlockByNumber", field("transactions", None)),
    ("eth_getBlockByNumber", field("baseFeePerGas", None)),
    ("eth_getLogs", field("data", "0x05")),
    ("eth_getLogs", field("data", "0x" + "ff" * 256)),
    ("eth_getLogs", field("logIndex", OVERFLOW)),
    ("eth_getLogs", field("topics", [])),
    ("eth_getLogs", field("blockHash", None)),
    ("eth_getTransactionReceipt", field("blockNumber", None)),
    ("eth_getTransactionReceipt", field("gasUsed", None)),
    ("eth_getTransactionReceipt", field("status", None)),
    *((method, lie) for method in ("eth_getLogs", "eth_call") for lie in EVERYWHERE.values()),
    *(("eth_getTransactionReceipt", lie) for lie in EVERYWHERE.values()),
]


@pytest.mark.parametrize(("method", "lie"), LIES)
def test_nonsense_never_raises_an_error_that_is_not_ours(
    liar, recorded, stage, tmp_path, method, lie
):
    liar, connector = liar
    task_id, done = recorded
    attempt = stage.connector.task(task_id).last_attempt + 1

    def follow():
        with EventStream(connector, tmp_path / "e.sqlite") as stream:
            for item in stream:
                stream.ack(item)

    def deliver():
        outbox = Outbox(tmp_path / "o.sqlite")
        try:
            outbox.enqueue(RoundCall(task_id, 1, attempt, digest(5), digest(6)))
            outbox.deliver(connector, receipt_timeout_s=0.01)
        finally:
            outbox.close()

    liar.method, liar.change = method, lie
    noticed = 0
    for ask in (
        connector.status,
        connector.nodes,
        lambda: connector.round_records(task_id),
        lambda: connector.inclusion(done),
        follow,
        *([] if method == "eth_getBalance" else [deliver]),
    ):
        try:
            ask()
        except ChainError:
            noticed += 1
    assert noticed > 0


def test_the_worker_outlives_what_its_endpoint_says(liar, stage, nodes, tmp_path):
    liar, connector = liar
    task_id = stage.running_task(nodes)
    liar.method, liar.change = "eth_getLogs", result([None])
    outbox = Outbox(tmp_path / "o.sqlite")
    with OutboxWorker(outbox, connector, first_pause_s=0.01) as worker:
        worker.enqueue(RoundCall(task_id, 1, 1, digest(5), digest(6)))
        while worker.alarm is None:
            time.sleep(0.005)
        liar.method = None
        while worker.unrecorded():
            time.sleep(0.005)
    outbox.close()
    assert len(stage.connector.round_records(task_id)) == 1


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"result": 5}, {"error": {"code": "1"}}])
def test_an_answer_without_form_is_refused_before_it_is_read(answer):
    with pytest.raises(ValueError, match="eth_blockNumber is answered by"):
        checked("eth_blockNumber", answer)


@contextmanager
def served(body, *, status=200, slowly=0.0):
    """Serve one and the same answer over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            size = 1 if slowly else len(body) or 1
            try:
                for start in range(0, len(body), size):
                    self.wfile.write(body[start : start + size])
                    time.sleep(slowly)
            except OSError:
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"<html>", 200), (b"[" * 100_000, 200), (b" " * 2000, 200), (b"", 302)],
    ids=["no JSON", "too deep", "too long", "elsewhere"],
)
@pytest.mark.parametrize("endpoints", [1, 2])
def test_an_endpoint_that_speaks_no_json_rpc_is_named(
    deployment, monkeypatch, body, status, endpoints
):
    monkeypatch.setattr(evm_rpc, "MAX_ANSWER_BYTES", 1000 if body.isspace() else 10**6)
    with (
        served(body, status=status) as url,
        pytest.raises(ChainError, match=r"127\.0\.0\.1.*no usable answer"),
    ):
        EvmReader((url,) * endpoints, deployment).head_block()


def test_an_endpoint_that_never_ends_its_answer_is_left(deployment, monkeypatch):
    monkeypatch.setattr(evm_rpc, "RETRIES", 1)
    with served(b" " * 20, slowly=0.05) as url, pytest.raises(ChainUnavailable, match="Timeout"):
        EvmReader(url, deployment, request_timeout_s=0.1).head_block()
