"""A coordinator whose key a signer holds can do its work on every kind of chain of ours."""

import pytest

from twopm_flower.chain.backends import backend, deployment_of
from twopm_flower.cli.signer_policy import FeeLimits, Role, make_policy
from twopm_flower.errors import SignerRefused
from twopm_flower.node.chain_file import make_chain_settings
from twopm_flower.records.statements import Departure, sign
from twopm_flower.signer.remote import RemoteSigner, RemoteSolanaSigner
from twopm_flower.signer.rpc import answer
from twopm_flower.signer.solana_message import base58
from twopm_flower.signer.station import open_station

FEES = FeeLimits(max_fee_per_gas_wei=10**11, max_gas=10**6, max_fee_per_day_wei=10**18)
DIGEST = "0x" + "77" * 32


class InThisProcess:
    """Carries requests to a service without a socket."""

    where = "this process"

    def __init__(self, service):
        self._service = service

    def post(self, body):
        answered = answer(self._service, body, client="a test")
        return answered.status, answered.body


@pytest.mark.parametrize("family", ["ledger", "solana"])
def test_the_written_policy_lets_a_coordinator_work(family, tmp_path):
    kind = backend(family)
    with kind.local_chain(tmp_path / "chain") as chain:
        pinned = make_chain_settings(chain.url, kind.deploy(chain.url, chain.signer))
        ed25519 = kind.key_kind == "ed25519"
        account = base58(chain.signer.public_key) if ed25519 else None
        policy = make_policy(pinned, Role.COORDINATOR, FEES, account=account)
        told: list[str] = []
        key = chain.folder / "account.key"
        service, close = open_station(key, policy, tell=told.append)
        remote = (RemoteSolanaSigner if ed25519 else RemoteSigner)(InThisProcess(service))
        connector = kind.open_connector(pinned, remote)
        task_id, _ = connector.create_task(
            DIGEST, rounds=2, min_contributors=2, quorum=2, max_samples=10
        )
        connector.cancel_task(task_id, "enough")
        assert connector.task(task_id).state == "cancelled"
        connector.anchor_receipts(DIGEST, 3)
        assert len(told) == 3
        if not ed25519:
            assert "CancelTask(" in told[1]
            assert 'reason="enough"' in told[1]
        # The program that is there is not set up anew, and a node's statements are not signed.
        if ed25519:
            (ours, _) = policy.solana.programs
            assert ours.program == pinned.program
            assert 0 not in ours.first_bytes
        else:
            domain = deployment_of(pinned).registry_domain
            departure = Departure(node=remote.address, nonce=0, deadline=1)
            with pytest.raises(SignerRefused):
                sign(departure, remote, domain)
        close()


def test_the_bid_that_the_policy_allows_is_the_connector_s_limit():
    from twopm_flower.chain.solana_account import MAX_PRICE, MAX_UNITS
    from twopm_flower.cli.signer_policy import SOLANA_MAX_PRICE
    from twopm_flower.signer.policy import SolanaRules

    assert SOLANA_MAX_PRICE == MAX_PRICE
    assert SolanaRules.model_fields["max_compute_units"].default == MAX_UNITS
