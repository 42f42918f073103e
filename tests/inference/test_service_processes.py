"""A service of several processes: what it does under load, when killed, and when told to end."""

import asyncio
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from lying_service import small_service
from safetensors.numpy import save
from service_requests import ask, plain_scores

from twopm_flower.errors import InferenceUnavailable
from twopm_flower.inference.service import Limits
from twopm_flower.inference.serving import Serving, listen
from twopm_flower.inference.worker import Plan
from twopm_flower.records.inference import PredictionReceipt
from twopm_flower.records.statements import signed_type

OCTETS = {"Content-Type": "application/octet-stream"}
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


def plan_of(service, folder):
    """Return what the workers of a model are told."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(
        save({"weight": service.weight, "bias": service.bias})
    )
    key = folder / "service.key"
    key.touch(mode=0o600)
    key.write_text((b"\x51" * 32).hex())
    return Plan(
        card=service.card.to_bytes().decode(),
        model=folder / "model.safetensors",
        store=folder / "receipts.sqlite",
        service_key=key,
        mask_key=None,
        allowed=None,
        tls_certificate=None,
        tls_key=None,
        limits=Limits(threads=1, read_s=5.0, answer_s=20.0),
    )


@contextmanager
def serving(folder, workers=2):
    """Serve a model with so many processes; yields the service, its address and the processes."""
    service = small_service()
    with Serving(listen("127.0.0.1", 0), plan_of(service, folder), workers) as processes:
        looking = threading.Thread(target=processes.run)
        looking.start()
        try:
            yield service, "http://{}:{}".format(*processes.address), processes
        finally:
            processes.stop()
            looking.join()


def right(service, asked, response):
    assert response.status_code == 200, response.text
    opened = asked.opened(response.content)
    rows = len(opened.scores)
    np.testing.assert_allclose(opened.scores, plain_scores(service, rows), atol=1e-3)
    return opened


async def up(client):
    """Wait until a worker answers."""
    response = await client.get("/readyz", timeout=PATIENCE_S)
    assert response.status_code == 200


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(what, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def receipts_in(folder):
    """Return the receipts of a store, read by nothing of ours, after SQLite found it whole."""
    with closing(sqlite3.connect(folder / "receipts.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = database.execute("SELECT signed FROM receipts").fetchall()
    return [signed_type(PredictionReceipt).from_bytes(signed) for (signed,) in found]


def test_a_worker_that_is_killed_under_load_loses_no_request_and_is_replaced(tmp_path):
    folder = tmp_path / "service"
    broken = []

    async def one(client, asked):
        for _ in range(20):
            try:
                return await client.post("/v1/predictions", content=asked.body(), headers=OCTETS)
            except httpx.TransportError as error:
                broken.append(error)
        raise InferenceUnavailable("twenty connections broke")

    async def load(url, processes):
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits) as client:
            await up(client)
            before = processes.pids
            asked = [ask(service, now=time.time()) for _ in range(80)]
            tasks = []
            for number, each in enumerate(asked):
                tasks.append(asyncio.create_task(one(client, each)))
                await asyncio.sleep(0.005)
                if number == 30:
                    os.kill(before[0], signal.SIGKILL)
            return asked, await asyncio.gather(*tasks), before

    with serving(folder) as (service, url, processes):
        asked, responses, before = asyncio.run(load(url, processes))
        opened = [right(service, *pair) for pair in zip(asked, responses, strict=True)]
        wait_for(lambda: before[0] not in processes.pids)
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S).status_code == 200
    kept = receipts_in(folder)
    assert len(kept) == len(asked)
    assert {receipt.to_bytes() for receipt in kept} == {one.receipt.to_bytes() for one in opened}
    for pid in (*before, *processes.pids):
        assert gone(pid)


def test_a_service_that_is_told_to_end_answers_what_it_has_begun(tmp_path):
    async def end(url, processes):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            await up(client)
            asked = ask(service, now=time.time())
            body, reached = asked.body(), asyncio.Event()

            async def slowly():
                yield body[:100]
                # Asked for when the first part is sent, and answered after the signal.
                reached.set()
                await asyncio.sleep(0.2)
                yield body[100:]

            task = asyncio.create_task(
                client.post("/v1/predictions", content=slowly(), headers=OCTETS)
            )
            await reached.wait()
            await asyncio.sleep(0.1)
            os.kill(processes.pids[0], signal.SIGTERM)
            right(service, asked, await task)

    with serving(tmp_path / "service", workers=1) as (service, url, processes):
        asyncio.run(end(url, processes))


@pytest.mark.slow
def test_fifty_requests_a_second_are_answered_within_a_tenth_of_a_second(tmp_path):
    async def load(url):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            await up(client)
            # All bodies stand before the clock runs: what is measured is the service.
            asked = [ask(service, now=time.time()) for _ in range(250)]
            bodies = [each.body() for each in asked]
            start = time.perf_counter()

            async def one(number):
                await asyncio.sleep(max(0, start + number / 50 - time.perf_counter()))
                sent = time.perf_counter()
                response = await client.post(
                    "/v1/predictions", content=bodies[number], headers=OCTETS
                )
                return time.perf_counter() - sent, response

            for warm in bodies[:4]:
                await client.post("/v1/predictions", content=warm, headers=OCTETS)
            start = time.perf_counter()
            return asked, await asyncio.gather(*(one(number) for number in range(250)))

    with serving(tmp_path / "service") as (service, url, _):
        asked, answers = asyncio.run(load(url))
        for each, (_, response) in zip(asked, answers, strict=True):
            right(service, each, response)
        assert statistics.quantiles([took for took, _ in answers], n=100)[98] < 0.1
        text = httpx.get(f"{url}/metrics").text
    # The figures of both workers, whichever was asked.
    assert 'twopm_inference_requests_total{status="200"} 254.0' in text


PARENT = """
import os, sys
from pathlib import Path
from lying_service import small_service
from test_service_processes import plan_of
from twopm_flower.inference.serving import Serving, listen
folder = Path(sys.argv[1])
with Serving(listen("127.0.0.1", 0), plan_of(small_service(), folder), 2) as serving:
    print(serving.address[1], *serving.pids, flush=True)
    serving.run()
"""


@pytest.mark.slow
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "service")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    ) as parent:
        port, *pids = (int(word) for word in parent.stdout.readline().split())
        ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S)
        assert ready.status_code == 200
        parent.kill()
        wait_for(lambda: all(gone(pid) for pid in pids))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/readyz")
