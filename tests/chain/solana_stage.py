"""A local Solana chain in this process, and endpoints that lie about it, for the tests here."""

import base64
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain_stage import Stage
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from twopm_flower.chain.solana import SolanaConnector, deploy
from twopm_flower.chain.solana_local import DATABASE, SolanaLocal
from twopm_flower.chain.solana_program import LOADER, packaged_program
from twopm_flower.chain.solana_store import SolanaStore, StoredAccount
from twopm_flower.records.bundle import Deployment

ELSEWHERE = Pubkey(b"\x42" * 32)
"""Where the same program stands a second time."""


@dataclass
class SolanaStage:
    """A local chain with our program initialised, and a stage over it."""

    folder: Path
    local: SolanaLocal
    deployment: Deployment
    stage: Stage

    def connector(self, *endpoints: Any, signer: Any = None) -> SolanaConnector:
        chosen = endpoints or (self.local.rpc,)
        return SolanaConnector(
            chosen, self.deployment, signer or self.local.signer, receipt_timeout_s=5.0
        )

    def ask(self, method: str, *parameters: Any) -> Any:
        answer = self.local.rpc.answer(request(method, *parameters))
        assert "result" in answer, answer
        return answer["result"]


def open_stage(folder) -> SolanaStage:
    local = SolanaLocal(folder)
    deployment = deploy(local.rpc, local.signer)
    stage = Stage(SolanaConnector([local.rpc], deployment, local.signer))
    return SolanaStage(folder, local, deployment, stage)


def request(method: str, *parameters: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}


class Lying:
    """An endpoint that changes what another one answers to one method.

    `change` takes the result and the parameters, and returns another result; None from
    `change` keeps what it changed in place.
    """

    def __init__(self, endpoint, method, change):
        self._endpoint, self._method, self._change = endpoint, method, change
        self.asked = []

    def answer(self, request):
        self.asked.append(request["method"])
        answer = copy.deepcopy(self._endpoint.answer(request))
        if request["method"] == self._method and "result" in answer:
            changed = self._change(answer["result"], request["params"])
            answer["result"] = answer["result"] if changed is None else changed
        return answer


def pay(chain: Any, signer: Any, instructions: list[Instruction], **options: Any) -> str:
    """Send any instructions, signed by any account, and return the signature."""
    blockhash = chain.ask("getLatestBlockhash")["value"]["blockhash"]
    payer = Pubkey(signer.public_key)
    message = Message.new_with_blockhash(instructions, payer, Hash.from_string(blockhash))
    signature = Signature(signer.sign_solana_message(bytes(message)))
    raw = bytes(VersionedTransaction.populate(message, [signature]))
    encoded = base64.b64encode(raw).decode()
    return str(chain.ask("sendTransaction", encoded, {"encoding": "base64", **options}))


def open_stage_with_twin(folder: Path) -> SolanaStage:
    """As :func:`open_stage`, with the same program a second time, as anybody may deploy it."""
    with SolanaLocal(folder):
        pass
    store = SolanaStore(folder / DATABASE)
    code = packaged_program()
    store.set_account(StoredAccount(bytes(ELSEWHERE), 10**9, bytes(LOADER), code, executable=True))
    store.close()
    return open_stage(folder)
