import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from solana_stage import (
    open_stage,
)

from twopm_flower.chain import solana_account, solana_rpc
from twopm_flower.chain.solana import SolanaBackend, SolanaReader
from twopm_flower.chain.solana_identity import Accounts
from twopm_flower.chain.solana_program import PROGRAM_ID
from twopm_flower.config import ChainSettings
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    WrongChain,
)

AT = Accounts(PROGRAM_ID)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = open_stage(tmp_path_factory.mktemp("solana") / "chain")
    with chain.local:
        yield chain


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(solana_account, "RESEND_S", 0.05)
    monkeypatch.setattr(solana_rpc, "BACKOFF_S", 0.001)


def test_the_next_endpoint_answers_when_one_does_not(chain):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    reader = SolanaReader([dead, chain.local.rpc], chain.deployment)
    assert reader.nodes() == ()
    assert reader.status().endpoint == "the chain in this process"
    with pytest.raises(ChainUnavailable, match=r"127\.0\.0\.1"):
        SolanaReader([dead], chain.deployment).head_block()


def test_an_endpoint_of_another_cluster_is_not_asked_in_its_place(chain, tmp_path):
    other = open_stage(tmp_path / "other")
    with other.local, served(b"", status=503) as dead:
        reader = SolanaReader([dead, other.local.rpc], chain.deployment)
        with pytest.raises(WrongChain, match="genesis"):
            reader.head_block()


@contextmanager
def served(body, *, status=200, kind="application/json", slowly=0.0):
    """Serve one and the same answer over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), 1 if slowly else 65536):
                self.wfile.write(body[start : start + (1 if slowly else 65536)])
                self.wfile.flush()
                time.sleep(slowly)

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


ANSWERS = {
    "no JSON": (b"<html>", {}),
    "no JSON-RPC": (b"[]", {}),
    "neither result nor error": (b'{"jsonrpc": "2.0", "id": 1}', {}),
    "an error of no form": (b'{"error": "no"}', {}),
    "an error": (b'{"error": {"code": -32000, "message": "no"}}', {}),
    "too deep": (b"[" * 100_000, {}),
    "elsewhere": (b"", {"status": 302}),
    "forbidden": (b"", {"status": 403}),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_endpoint_that_speaks_no_json_rpc_is_named(chain, answer):
    body, options = ANSWERS[answer]
    with served(body, **options) as url, pytest.raises(ChainError, match=r"127\.0\.0\.1") as error:
        SolanaReader([url], chain.deployment).head_block()
    assert not isinstance(error.value, ChainUnavailable)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_endpoint_in_trouble_is_worth_another_try(chain, status):
    with served(b"", status=status) as url, pytest.raises(ChainUnavailable):
        SolanaReader([url], chain.deployment).head_block()


def test_an_endpoint_that_never_ends_its_answer_is_left(chain):
    with served(b" " * 20, slowly=0.05) as url, pytest.raises(ChainUnavailable):
        SolanaReader([url], chain.deployment, request_timeout_s=0.1).head_block()


def test_an_endpoint_that_lags_behind_is_worth_another_try(chain):
    behind = b'{"error": {"code": -32005, "message": "Node is behind by 42 slots"}}'
    with served(behind) as url, pytest.raises(ChainUnavailable, match="behind"):
        SolanaReader([url], chain.deployment).head_block()


def test_the_backend_asks_all_endpoints_of_the_settings(chain, tmp_path):
    with served(b"", status=503) as dead:
        settings = ChainSettings(
            rpc_url=dead,
            fallback_rpc_urls=(dead,),
            devnet_folder=chain.folder,
            **chain.deployment.model_dump(),
        )
        with pytest.raises(ChainUnavailable, match=f"{dead}.*{dead}"):
            SolanaBackend().open_reader(settings).head_block()
        offline = SolanaBackend().open_offline(settings)
        assert offline.head_block() == chain.ask("getSlot")
        elsewhere = settings.model_copy(update={"devnet_folder": tmp_path})
        assert SolanaBackend().open_offline(elsewhere) is None
