"""What a requester, or somebody who is none, could take from a service without paying for it."""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import os
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from lying_service import ISSUER, SERVICE, small_service
from service_requests import NOW, ask

from twopm_flower.chain.facts import ReceiptAnchor
from twopm_flower.inference.anchoring import Anchorer
from twopm_flower.inference.connections import ImpatientProtocol
from twopm_flower.inference.desk import MOST_TREES, Desk
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.inference.served_model import ServedModel
from twopm_flower.inference.service import Limits, create_app, most_request_bytes
from twopm_flower.inference.worker import Plan, server_config
from twopm_flower.records.merkle import receipt_leaf, root_from_proof

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def served():
    return small_service()


@pytest.fixture
def desk(served, tmp_path):
    arrays = {"weight": served.weight, "bias": served.bias}
    model = ServedModel.from_card(served.card, arrays)
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    yield Desk(model, SERVICE, store, now=lambda: float(NOW))
    store.close()


def slow(first=b"TPI1", event=None):
    async def body():
        yield first
        await event.wait()

    return body()


async def meanwhile(desk, limits, requests, first, body):
    """Start requests that never send all of their body, then one that does."""
    transport = httpx.ASGITransport(create_app(desk, limits))
    event = asyncio.Event()
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        path = "/v1/predictions"
        begun = [
            asyncio.create_task(http.post(path, content=slow(first, event), headers=OCTETS))
            for _ in range(requests)
        ]
        await asyncio.sleep(0.05)
        answer = await http.post(path, content=body, headers=OCTETS)
        event.set()
        return answer.status_code, [one.status_code for one in await asyncio.gather(*begun)]


def test_whoever_sends_slowly_takes_no_place_of_those_who_are_answered(desk, served):
    limits = Limits(in_flight=2, read_s=5.0)
    status, _ = asyncio.run(meanwhile(desk, limits, 20, b"TPI1", ask(served).body()))
    assert status == 200


def test_bodies_that_are_waited_for_are_bounded_together(desk, served):
    longest = most_request_bytes(served.parameters, served.card.max_rows)
    limits = Limits(held_bytes=4 * longest, read_s=5.0)
    most = bytes(longest - 1)
    status, begun = asyncio.run(meanwhile(desk, limits, 9, most, ask(served).body()))
    assert status == 429
    assert begun.count(429) == 9 - 4
    status, begun = asyncio.run(meanwhile(desk, limits, 3, most, ask(served).body()))
    assert status == 200


def test_the_longest_request_can_be_sent_however_little_is_kept(desk, served):
    longest = most_request_bytes(served.parameters, served.card.max_rows)
    limits = Limits(held_bytes=1, read_s=5.0)
    status, _ = asyncio.run(meanwhile(desk, limits, 1, bytes(longest - 1), ask(served).body()))
    assert status == 200


def test_memory_is_free_again_after_requests_of_any_end(desk, served):
    limits = Limits(held_bytes=1)
    longest = most_request_bytes(served.parameters, served.card.max_rows)
    transport = httpx.ASGITransport(create_app(desk, limits))

    async def several():
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            bodies = [
                bytes(longest - 9),
                ask(served).body(),
                bytes(longest - 9),
                bytes(longest - 9),
            ]
            sent = [await http.post("/v1/predictions", content=b, headers=OCTETS) for b in bodies]
            return [one.status_code for one in sent]

    assert asyncio.run(several()) == [400, 200, 400, 400]


class Chain:
    """Anchors whatever it is given."""

    def __init__(self):
        self.anchored = []

    def anchor_receipts(self, root, count):
        self.anchored.append((root, count))
        return ReceiptAnchor(
            issuer=ISSUER.address,
            root=root,
            count=count,
            transaction_hash="0x" + "77" * 32,
            block_number=len(self.anchored),
            block_hash="0x" + "78" * 32,
        )


def test_asking_where_receipts_are_anchored_costs_a_service_one_tree_for_a_batch(
    desk, served, monkeypatch
):
    monkeypatch.setattr(ReceiptStore.without_batch, "__defaults__", (4,))
    for _ in range(10):
        desk.answer(ask(served).body())
    found = desk.store.without_batch(10)
    chain = Chain()
    assert Anchorer(desk.store, chain, ISSUER.address).anchor() == 0
    assert [count for _, count in chain.anchored] == [4, 4, 2]
    built = []
    digests_in = ReceiptStore.digests_in
    monkeypatch.setattr(
        ReceiptStore,
        "digests_in",
        lambda store, batch: built.append(batch.number) or digests_in(store, batch),
    )
    for _, digest in found * 3:
        anchoring = desk.anchoring(digest)
        proof = [bytes.fromhex(part[2:]) for part in anchoring.proof]
        root = root_from_proof(receipt_leaf(ISSUER.address, digest), proof)
        assert "0x" + root.hex() == anchoring.root
    assert sorted(built) == [1, 2, 3]
    assert len(desk._trees) <= MOST_TREES


def test_asking_for_receipts_is_bounded_as_predictions_are(desk):
    transport = httpx.ASGITransport(create_app(desk, Limits(in_flight=1, threads=1)))
    anchoring = Desk.anchoring

    def slowly(self, digest):
        time.sleep(0.05)
        return anchoring(self, digest)

    async def several():
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            paths = ["/v1/receipts/0x" + hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]
            found = await asyncio.gather(*(http.get(path) for path in paths))
            return sorted(one.status_code for one in found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desk, "anchoring", slowly)
        assert asyncio.run(several()) == [404, 429, 429, 429, 429]


async def late(scope, receive, send):
    """Answer a request after a quarter of a second."""
    await asyncio.sleep(0.25)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def listening_worker(app):
    """Serve an application as a worker does; give the address."""
    config = server_config(app, Plan.model_construct(tls_certificate=None, tls_key=None))
    config.lifespan = "off"
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()
        server.should_exit = True
        await serving


def test_headers_without_end_are_not_kept():
    async def attack():
        async with listening_worker(late) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET /v1/model HTTP/1.1\r\nHost: x\r\n")
            ended = asyncio.create_task(reader.read())
            with contextlib.suppress(ConnectionError):
                for number in range(2_000):
                    writer.write(b"x%d: " % number + b"a" * 10_000 + b"\r\n")
                    await writer.drain()
                    if ended.done():
                        break
            writer.close()
            with contextlib.suppress(ConnectionError):
                await ended
            return number

    assert asyncio.run(attack()) < 1_900


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nG"]
)
def test_connections_on_which_nothing_begins_are_closed(monkeypatch, sent):
    monkeypatch.setattr(ImpatientProtocol, "headers_s", 0.1)

    async def attack():
        async with listening_worker(late) as address, asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            return answer

    # An answer that takes longer than that still comes.
    assert asyncio.run(attack()).startswith(b"HTTP/1.1 204" if sent.endswith(b"G") else b"")


def test_no_file_of_the_store_is_readable_by_others(desk, served, tmp_path):
    before = os.umask(0o022)
    try:
        store = ReceiptStore(tmp_path / "another.sqlite")
    finally:
        os.umask(before)
    dataclasses.replace(desk, store=store).answer(ask(served).body())
    files = list(tmp_path.glob("another.sqlite*"))
    assert len(files) > 1
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
    store.close()


def test_a_request_that_is_cut_off_leaves_no_traceback_in_the_log(desk, caplog):
    app = create_app(desk)

    async def attack():
        async with listening_worker(app) as address:
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
            await writer.drain()
            while not app.state.counter._reading:
                await asyncio.sleep(0.01)
            writer.close()
            while app.state.counter._reading:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(attack(), 10))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_store_is_closed_after_what_other_threads_ask_of_it(tmp_path):
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    asking = store._lock
    with asking:
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
    closing.join(5)
    assert not closing.is_alive()
