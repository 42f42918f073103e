import json
import logging
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from chain_stage import Stage, refused

from twopm_flower.chain.calimero import EXECUTOR_VARIABLE, TOKEN_VARIABLE, CalimeroBackend
from twopm_flower.chain.json_rpc import REVERTED
from twopm_flower.chain.ledger_service import LedgerService
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainError, ChainUnavailable, ConfigError, WrongChain

CONTEXT = "9yTeLqyNMHKnxWvGz2vGXj6tPzB4kSg5mDJv1uyHqHcW"
# What each method of the application takes, by name and in the order of the ledger's service.
METHODS = {"info": [], "entries": ["from", "limit"], "submit": ["action"]}


class Node:
    """Answers as a Calimero node does whose application keeps a ledger."""

    def __init__(self, service):
        self.service = service
        self.seen = []
        self.lie = None
        self.released = threading.Event()

    def reply(self, path, headers, request):
        self.seen.append((path, headers, request))
        if self.lie is not None:
            return self.lie(request)
        assert path == "/jsonrpc"
        assert set(request) == {"jsonrpc", "id", "method", "params"}
        assert request["method"] == "execute"
        return 200, {"jsonrpc": "2.0", "id": request["id"], **self.execute(request["params"])}

    def execute(self, parameters):
        if parameters["contextId"] != CONTEXT:
            return {"error": {"type": "ContextNotFound"}}
        names = METHODS[parameters["method"]]
        arguments = parameters["argsJson"]
        assert set(arguments) == set(names)
        answer = self.service.answer(
            {"id": 0, "method": f"ledger_{parameters['method']}"}
            | {"params": [arguments[name] for name in names]}
        )
        error = answer.get("error")
        if error is None:
            return {"result": {"output": answer["result"]}}
        if error["code"] != REVERTED:
            return {"error": {"type": "FunctionCallError", "data": error["message"]}}
        return {"result": {"output": {"refused": error["data"] | {"message": error["message"]}}}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        node = self.server.node
        status, answer = node.reply(self.path, self.headers, json.loads(self.rfile.read(length)))
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A client may have had enough.
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with LedgerService(tmp_path_factory.mktemp("calimero") / "ledger") as service:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.node = Node(service)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def node(server):
    yield server.node
    server.node.lie = None
    server.node.released.set()


@pytest.fixture
def settings(server, node):
    url = f"http://127.0.0.1:{server.server_port}"
    pinned = CalimeroBackend().deploy(url, node.service.signer, program=CONTEXT)
    return ChainSettings(**pinned.model_dump(), rpc_url=url)


@pytest.fixture
def stage(settings, node):
    return Stage(CalimeroBackend().open_connector(settings, node.service.signer))


def test_a_task_goes_from_creation_to_its_model_through_a_context(stage, settings):
    members = stage.registered_nodes(2)
    task_id = stage.finished_rounds(members)
    stage.finalise(task_id, members)
    reader = CalimeroBackend().open_reader(settings)
    assert reader.task(task_id).state == "finalised"
    assert len(reader.round_records(task_id)) == 2
    assert reader.deployment().program == CONTEXT
    assert reader.status().family == "calimero"
    assert reader.status().endpoint == f"{settings.rpc_url}/jsonrpc"


def test_a_refused_action_keeps_the_name_of_its_error(stage, node):
    task_id = stage.running_task(stage.registered_nodes(2))
    head = node.service.replay.head
    with refused("OutOfOrder"):
        stage.record(task_id, 2)
    assert node.service.replay.head == head


def test_an_application_cannot_refuse_what_the_rules_allow(stage, node):
    stage.connector.head_block()

    def lie(request):
        if request["params"]["method"] != "submit":
            return 200, {"id": request["id"], **node.execute(request["params"])}
        output = {"refused": {"error": "WrongState", "message": "no"}}
        return 200, {"id": request["id"], "result": {"output": output}}

    node.lie = lie
    with pytest.raises(ChainUnavailable, match="refuses what the rules allow"):
        stage.create()


def test_an_application_cannot_change_an_entry(stage, settings, node):
    stage.create()

    def lie(request):
        answer = json.loads(json.dumps(node.execute(request["params"])))
        for entry in answer["result"]["output"].get("entries", ()):
            entry["time"] += 1
        return 200, {"id": request["id"], **answer}

    node.lie = lie
    with pytest.raises(WrongChain):
        CalimeroBackend().open_reader(settings).head_block()


def test_a_context_that_keeps_another_ledger_is_not_believed(settings):
    other = settings.model_copy(update={"genesis_hash": "0x" + "12" * 32})
    with pytest.raises(WrongChain, match="genesis"):
        CalimeroBackend().open_reader(other).head_block()


def test_a_context_that_the_node_does_not_have_is_named(settings):
    other = settings.model_copy(update={"program": "elsewhere"})
    with pytest.raises(ChainError, match=r"context elsewhere.*ContextNotFound"):
        CalimeroBackend().open_reader(other).head_block()


def result(output):
    return lambda request: (200, {"id": request["id"], "result": {"output": output}})


def failure(error):
    return lambda request: (200, {"id": request["id"], "error": error})


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lambda _: (200, b"<html>"), "no usable answer"),
        (lambda _: (200, b"[]"), "no JSON-RPC"),
        (lambda _: (200, {"id": 7, "result": {"output": {}}}), "another request"),
        (lambda request: (200, {"id": request["id"]}), "no output"),
        (lambda request: (200, {"id": request["id"], "result": []}), "no output"),
        (result(None), "no output"),
        (result([1]), "no output"),
        (result({}), "genesis is missing"),
        (result({"genesis": {"version": 1}}), "no usable answer"),
        (result({"refused": "no"}), "without a reason"),
        (result({"genesis": float("nan")}), "no usable answer"),
        (lambda _: (200, b"[" * 100_000), "nested deeper"),
        (lambda _: (200, b" " * (17 * 1024 * 1024)), "more than"),
        (failure("no"), "cannot execute info"),
        (failure({"type": "FunctionCallError", "data": "panicked"}), "panicked"),
        (failure({"type": "Uninitialized"}), "has not received the context"),
        (lambda _: (401, b""), "does not let us in"),
        (lambda _: (404, b""), "status is 404"),
        (lambda _: (302, b""), "status is 302"),
        (lambda _: (503, b""), "does not answer"),
    ],
)
def test_a_hostile_answer_ends_with_an_error_of_ours(settings, node, lie, says):
    node.lie = lie
    with pytest.raises(ChainError, match=says):
        CalimeroBackend().open_reader(settings).head_block()


def test_a_node_that_is_silent_is_given_up(settings, node):
    node.released.clear()
    node.lie = lambda _: (200, b"" if node.released.wait(20) else b"late")
    impatient = settings.model_copy(update={"timeout_s": 0.1})
    with pytest.raises(ChainUnavailable, match="does not answer"):
        CalimeroBackend().open_reader(impatient).head_block()


def test_token_and_executor_are_sent_only_when_they_are_set(settings, node, monkeypatch):
    CalimeroBackend().open_reader(settings).check()
    _, headers, request = node.seen[-1]
    assert "Authorization" not in headers
    assert set(request["params"]) == {"contextId", "method", "argsJson"}
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token")
    monkeypatch.setenv(EXECUTOR_VARIABLE, "a-member")
    CalimeroBackend().open_reader(settings).check()
    _, headers, request = node.seen[-1]
    assert headers["Authorization"] == "Bearer a-token"
    assert request["params"]["executorPublicKey"] == "a-member"


def test_opening_says_that_the_family_is_experimental(settings, caplog):
    with caplog.at_level(logging.WARNING):
        CalimeroBackend().open_reader(settings)
    assert "EXPERIMENTAL" in caplog.text


def test_a_context_has_to_be_named_and_no_node_comes_with_the_package(tmp_path, settings):
    with pytest.raises(ConfigError, match="id of a context"):
        CalimeroBackend().open_reader(settings.model_copy(update={"program": ""}))
    with pytest.raises(ConfigError, match="no Calimero node can be installed here"):
        CalimeroBackend().local_chain(tmp_path)


def test_an_address_that_is_none_is_a_mistake_in_the_settings(settings):
    with pytest.raises(ConfigError, match="not an address"):
        CalimeroBackend().open_reader(settings.model_copy(update={"rpc_url": "http://[::1"}))
