"""A stranger who sees a registration on its way sends it first."""

from dataclasses import replace
from typing import Any

import pytest

from twopm_flower.errors import TransactionReverted
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.provision import init_node


class Watched:
    """A connector whose registrations are seen on their way; `first` is sent before each."""

    def __init__(self, connector: Any, first: Any) -> None:
        self._connector, self._first = connector, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    def register_node(self, *registration: Any) -> Any:
        self._first(self._connector, *registration)
        return self._connector.register_node(*registration)


def copy_it(connector: Any, *registration: Any) -> None:
    connector.register_node(*registration)


def spoil_it(_connector: Any, *_registration: Any) -> None:
    raise TransactionReverted("no", error_name="WrongSigner", arguments={})


def join_watched(federation: Any, first: Any) -> NodeHome:
    home = federation.homes[0]
    (home / "sealing.key").unlink()
    init_node(home, name="node-0", chain=federation.chain.settings)
    invitation = federation.create()
    federation.chain = replace(
        federation.chain, connector=Watched(federation.chain.connector, first)
    )
    federation.join(invitation, 0)
    members = federation.chain.reader.members(invitation.task_id)
    assert [member.node for member in members] == [NodeHome(home).signer.address]
    return NodeHome(home)


def test_a_node_whose_registration_was_copied_joins_all_the_same(federate: Any) -> None:
    federation = federate(3)
    node = join_watched(federation, copy_it)
    registered = federation.chain.reader.registered_key(node.signer.address)
    assert registered == node.sealing_key.public


def test_a_registration_that_does_not_hold_is_still_an_error(federate: Any) -> None:
    with pytest.raises(TransactionReverted, match="no"):
        join_watched(federate(3), spoil_it)
