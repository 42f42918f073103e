"""A ledger in this process, and a service that may be made to lie about it."""

import json
from pathlib import Path

from chain_stage import Stage

from twopm_flower.chain.ledger_actions import CreateTask
from twopm_flower.chain.ledger_connector import LedgerConnector
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_records import Entry, seal_entry, sign_action
from twopm_flower.chain.ledger_service import OPERATOR_KEY, LedgerService
from twopm_flower.chain.ledger_source import ServiceSource
from twopm_flower.signer.keystore import LocalSigner


def connect(service, signer=None, *, to=None):
    """A connector to a service, or to what stands between."""
    source = ServiceSource([to or service])
    return LedgerConnector(source, service.replay.deployment, signer or service.signer)


def read(service, *, to=None):
    return LedgerReader(ServiceSource([to or service]), service.replay.deployment)


def ask(service, method, *parameters):
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    return service.answer(json.loads(json.dumps(request)))


def entries(service):
    return [Entry.from_json(one) for one in ask(service, "ledger_entries", 1)["result"]["entries"]]


def create_task(signer, deployment, number, *, expires_at=1000):
    """A signed action that differs from others by its number."""
    action = CreateTask(
        author=signer.address,
        salt=f"0x{number:064x}",
        expires_at=expires_at,
        terms_digest=f"0x{77:064x}",
        rounds=1,
        min_contributors=2,
        quorum=1,
        max_samples=5,
    )
    return sign_action(action, signer, deployment)


def sealed(service, after, signed, *, time=None, operator=None, number=None):
    """An entry after another one, sealed by the ledger's own operator."""
    folder = Path(service.folder)
    return seal_entry(
        after.number + 1 if number is None else number,
        after.digest,
        after.time if time is None else time,
        signed,
        operator=operator or LocalSigner.from_file(folder / OPERATOR_KEY),
        deployment=service.replay.deployment,
    )


class Liar:
    """Answers as the service does, but for the results that a test changes."""

    def __init__(self, service: LedgerService) -> None:
        self.service = service
        self.lies = {}
        self.errors = {}

    def answer(self, request):
        if request["method"] in self.errors:
            error = self.errors[request["method"]]
            return {"jsonrpc": "2.0", "id": request["id"], "error": error}
        answer = json.loads(json.dumps(self.service.answer(request)))
        lie = self.lies.get(request["method"])
        return answer if lie is None else lie(request, answer)

    def shows(self, *entries, head=None):
        """Hand out these entries, whatever was asked for."""

        def lie(request, answer):
            first = request["params"][0]
            page = [entry.to_json() for entry in entries if entry.number >= first]
            number = entries[-1].number if head is None else head
            return answer | {"result": {"head": number, "entries": page}}

        self.lies["ledger_entries"] = lie


def small_history(service):
    """Some nodes and a task, as a stage on which to go on."""
    stage = Stage(connect(service))
    nodes = stage.registered_nodes(2)
    return stage, nodes, stage.running_task(nodes)
