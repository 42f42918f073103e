"""What a malicious server, and nodes that work with it, try in runs with one-time keys."""

import logging
import shutil
from dataclasses import replace

import pytest
from federation import tell
from test_one_time_keys import TEN, assert_equal_models, assert_verified, kill, kind_of

from twopm_flower.errors import BadOpening, KeyCeremonyError, QuorumError, SharingError
from twopm_flower.federated import key_sharing, wire
from twopm_flower.federated.exchange import EvaluateOrder, TrainOrder
from twopm_flower.federated.server_run import ServerRun
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.frame import parse_update
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.sealed_shares import open_opening, open_share
from twopm_flower.privacy.sharing import reconstruct
from twopm_flower.records.statements import ReaderKey, sign

FOUR = {"nodes": 4, "colluders": 1, "trust_mode": "one-time-key"}


def replies_of(federation, kind, round_):
    """Return what the nodes answered in an exchange, by node index."""
    found = {}
    for (index, content), (_, reply) in zip(
        federation.grid.sent, federation.grid.replied, strict=True
    ):
        order = wire.parse_order(content)
        if isinstance(order, TrainOrder) and (kind, round_) == ("train", order.round):
            found.setdefault(index, []).append(reply)
        if isinstance(order, EvaluateOrder) and (kind, round_) == (
            "evaluate",
            order.manifest.round,
        ):
            found.setdefault(index, []).append(reply)
    return found


def openings_in(replies):
    """Return the parsed openings, one list per node, errors and refusals left out."""
    return {
        index: [
            parsed.key
            for parsed in (
                wire.parse_evaluate_reply(reply.content)
                for reply in answers
                if reply is not None and not reply.has_error()
            )
            if parsed.key is not None
        ]
        for index, answers in replies.items()
    }


def misdeal(monkeypatch, dealer, readers):
    """Have one node seal garbage to some readers, and sign for it."""
    honest = key_sharing.seal_share

    def garbage(share, reader_key, context):
        sealed = honest(share, reader_key, context)
        if context.dealer == dealer.address and context.reader in {r.address for r in readers}:
            return bytes(len(sealed))
        return sealed

    monkeypatch.setattr(key_sharing, "seal_share", garbage)


def open_falsely(monkeypatch, liars):
    """Have some nodes open another share than theirs, in one coordinate, and sign for it."""
    honest = key_sharing.seal_opening

    def false(share, group_key, context):
        if context.node in {liar.address for liar in liars}:
            share = share.copy()
            share[17] = (int(share[17]) + 1) % 65537
        return honest(share, group_key, context)

    monkeypatch.setattr(key_sharing, "seal_opening", false)


def test_no_second_set_of_survivors_is_opened_in_a_round(federate, monkeypatch):
    federation = federate(**FOUR, rounds=1)
    honest = ServerRun.accept_evaluate
    victim = federation.nodes[3].address

    def once_more(self, replies):
        manifest = self._current.aggregate.manifest
        spoiled = honest(self, replies)
        if manifest.attempt == 1:
            self._rounds.pop()
            self._barred[victim] = "the server wants the sum without this node"
            return (victim,)
        return spoiled

    monkeypatch.setattr(ServerRun, "accept_evaluate", once_more)
    federation.make_grid()
    with pytest.raises(QuorumError):
        federation.run()
    opened = openings_in(replies_of(federation, "evaluate", 1))
    assert {index: len(keys) for index, keys in opened.items()} == dict.fromkeys(range(4), 1)
    for node in federation.nodes[:3]:
        assert "was permitted to be opened as the sum of" in node.progress.halted


def test_the_shares_of_an_earlier_round_open_nothing_in_a_later_one(federate):
    federation = federate(**FOUR, rounds=2)
    grid = federation.make_grid()
    shown = {}

    def replay(order, index):
        if index == 0 and isinstance(order, EvaluateOrder):
            shown[order.manifest.round] = order.shares
            if order.manifest.round == 2:
                return tell(order, shares=shown[1])
        return order

    grid.orders.append(replay)
    federation.run()
    assert openings_in(replies_of(federation, "evaluate", 2))[0] == []
    assert federation.nodes[0].progress.halted is None
    assert_equal_models(federation, range(4))


def test_a_share_that_the_server_alters_is_not_opened(federate, caplog):
    federation = federate(**FOUR, rounds=1)
    grid = federation.make_grid()

    def alter(order, index):
        if index != 0 or not isinstance(order, EvaluateOrder):
            return order
        first, *rest = order.shares
        altered = replace(first, sealed=first.sealed[:-1] + bytes([first.sealed[-1] ^ 1]))
        return tell(order, shares=(altered, *rest))

    grid.orders.append(alter)
    federation.run()
    assert openings_in(replies_of(federation, "evaluate", 1))[0] == []
    assert "is not one that it signed" in caplog.text
    assert_equal_models(federation, range(4))


@pytest.mark.slow
def test_a_node_opens_nothing_for_survivors_that_its_operator_does_not_know(federate):
    federation = federate(**TEN, rounds=1)
    careful = federation.nodes[0]
    for stranger in federation.nodes[4:]:
        (careful.home.path / "peers" / f"{stranger.address}.json").unlink()
    federation.run()
    assert openings_in(replies_of(federation, "evaluate", 1))[0] == []
    assert "operator trusts" in careful.progress.halted
    assert_verified(federation)


def test_a_reader_key_that_the_server_made_itself_is_refused(federate):
    federation = federate(**FOUR, rounds=1)
    grid = federation.make_grid()
    own = SealingKey.create()

    def swap(order, index):
        if not isinstance(order, TrainOrder):
            return order
        first, *rest = order.readers
        forged = first.model_copy(
            update={"statement": first.statement.model_copy(update={"public_key": own.public})}
        )
        return tell(order, readers=(forged, *rest))

    grid.orders.append(swap)
    with pytest.raises(QuorumError):
        federation.run()
    assert all(reply.has_error() for (reply,) in replies_of(federation, "train", 1).values())


def test_a_reader_key_of_an_earlier_attempt_is_refused(federate):
    federation = federate(**FOUR, rounds=2)
    grid = federation.make_grid()
    earlier = {}

    def replay(order, index):
        if index == 0 and isinstance(order, TrainOrder):
            earlier[order.round] = order.readers
            if order.round == 2:
                return tell(order, readers=earlier[1])
        return order

    grid.orders.append(replay)
    federation.run()
    (reply,) = replies_of(federation, "train", 2)[0]
    assert "for another attempt" in reply.error.reason


def test_a_stranger_gets_no_shares(federate):
    federation = federate(**FOUR, rounds=1)
    grid = federation.make_grid()
    stranger = SealingKey.create()

    def invite(order, index):
        if not isinstance(order, TrainOrder):
            return order
        statement = ReaderKey(
            task_id=order.task_id,
            round=order.round,
            attempt=order.attempt,
            node=federation.stage.devnet.signer.address,
            public_key=stranger.public,
        )
        signed = sign(statement, federation.stage.devnet.signer, federation.stage.deployment.domain)
        return tell(order, readers=(*order.readers, signed))

    grid.orders.append(invite)
    with pytest.raises(QuorumError):
        federation.run()
    for (reply,) in replies_of(federation, "train", 1).values():
        assert "not one member's only one" in reply.error.reason


def test_a_share_that_does_not_open_is_reported_and_the_others_open(federate, monkeypatch, caplog):
    federation = federate(**TEN, rounds=1)
    dealer, reader = federation.nodes[4], federation.nodes[0]
    misdeal(monkeypatch, dealer, [reader])
    with caplog.at_level(logging.ERROR):
        federation.run()
    assert f"ALARM: {reader.address} says that the share dealt by {dealer.address}" in caplog.text
    assert_equal_models(federation, range(10))
    assert_verified(federation)


@pytest.mark.slow
def test_a_dealer_whose_shares_nobody_can_open_is_left_out_of_a_new_attempt(federate, monkeypatch):
    federation = federate(**TEN, rounds=1)
    dealer, *others = federation.nodes
    misdeal(monkeypatch, dealer, others)
    federation.run()
    (entry,) = federation.bundle().rounds
    assert entry.manifest.attempt == 2
    assert [e.node for e in entry.manifest.exclusions] == [dealer.address]
    assert_equal_models(federation, range(1, 10))
    assert_verified(federation)


def test_a_false_opening_is_corrected_and_its_author_named(federate, monkeypatch, caplog):
    federation = federate(**TEN, rounds=1)
    liar = federation.nodes[6]
    open_falsely(monkeypatch, [liar])
    with caplog.at_level(logging.ERROR):
        federation.run()
    assert f"found that the shares opened by {liar.address} do not fit" in caplog.text
    assert_equal_models(federation, range(10))
    assert_verified(federation)


@pytest.mark.slow
def test_more_false_openings_than_can_be_corrected_open_nothing(federate, monkeypatch):
    federation = federate(**TEN, rounds=1)
    open_falsely(monkeypatch, federation.nodes[:2])
    with pytest.raises(QuorumError):
        federation.run()
    assert all(node.progress.opened_round == 0 for node in federation.nodes)
    assert all(node.progress.halted is None for node in federation.nodes)


@pytest.mark.slow
def test_a_members_second_connection_takes_nothing_from_its_first(federate, tmp_path):
    federation = federate(**TEN, rounds=1)
    member = federation.nodes[9]
    twin = tmp_path / "twin"
    shutil.copytree(member.home.path, twin)
    grid = federation.make_grid()
    config = {"partition-id": 9, "num-partitions": 10, "twopm-home": str(twin)}
    grid.contexts[11] = replace(grid.contexts[10], node_id=11, node_config=config)
    federation.run()
    assert all(node.progress.halted is None for node in federation.nodes[:9])
    assert_equal_models(federation, range(9))
    assert_verified(federation)


def test_a_round_is_opened_in_one_attempt_only(federate, monkeypatch):
    federation = federate(**FOUR, rounds=1)
    honest = ServerRun.accept_evaluate

    def once_more(self, replies):
        manifest = self._current.aggregate.manifest
        spoiled = honest(self, replies)
        if manifest.attempt == 1:
            # The server wants a second sum of the very same nodes, to average noise away.
            self._rounds.pop()
            return ("nobody",)
        return spoiled

    monkeypatch.setattr(ServerRun, "accept_evaluate", once_more)
    federation.make_grid()
    with pytest.raises(QuorumError):
        federation.run()
    opened = openings_in(replies_of(federation, "evaluate", 1))
    assert {index: len(keys) for index, keys in opened.items()} == dict.fromkeys(range(4), 1)


def test_a_guard_that_was_deleted_is_missed_at_once(federate, monkeypatch):
    federation = federate(**FOUR, rounds=1)
    honest = ServerRun.accept_evaluate

    def once_more(self, replies):
        manifest = self._current.aggregate.manifest
        spoiled = honest(self, replies)
        if manifest.attempt == 1:
            self._rounds.pop()
            for node in federation.nodes:
                (node.folder.path / "guard.sqlite").unlink()
            return ("nobody",)
        return spoiled

    monkeypatch.setattr(ServerRun, "accept_evaluate", once_more)
    federation.make_grid()
    with pytest.raises(QuorumError):
        federation.run()
    opened = openings_in(replies_of(federation, "evaluate", 1))
    assert {index: len(keys) for index, keys in opened.items()} == dict.fromkeys(range(4), 1)


def test_a_run_that_begins_again_with_more_readers_is_finished(federate):
    federation = federate(**FOUR, rounds=1)
    dead = kill(federation, {3: ("prepare", 0), 2: ("train", 1)})
    with pytest.raises(QuorumError):
        federation.run()
    dead.clear()
    federation.grid.messages.clear()
    federation.run()
    assert_equal_models(federation, range(4))
    assert_verified(federation)


@pytest.mark.parametrize("secret", [b"short", bytes(33)])
def test_a_group_key_of_another_kind_is_refused_before_anything_is_trained(federate, secret):
    federation = federate(**FOUR, rounds=1)
    for node in federation.nodes:
        file = node.folder.path / "shared.key"
        file.unlink()
        SharedKey("one-time-key", SecretBytes(secret)).save(file)
    federation.make_grid()
    with pytest.raises(QuorumError):
        federation.run()
    assert not list(federation.nodes[0].folder.path.glob("update-*"))


def test_the_server_and_three_nodes_learn_no_update_of_another(federate, tmp_path, monkeypatch):
    """Play the adversary with all it may hold: every message, and three nodes' whole homes."""
    federation = federate(**TEN, rounds=1)
    colluders, victim = federation.nodes[7:], federation.nodes[0]
    grid = federation.make_grid()
    stolen, told = {}, {}
    honest = key_sharing.KeySharing.deal

    def tell_all(self, key, *rest):
        # A colluder tells its own key; the others' stay where they are.
        if self._signer.address in {node.address for node in colluders}:
            told[self._signer.address] = key.secret.copy()
        return honest(self, key, *rest)

    monkeypatch.setattr(key_sharing.KeySharing, "deal", tell_all)

    def steal(deliver, message, index):
        # A colluder's home is worth most just before it opens and deletes its shares.
        if index in {node.index for node in colluders} and kind_of(message) == ("evaluate", 1):
            stolen[index] = tmp_path / f"stolen-{index}"
            shutil.copytree(federation.nodes[index].home.path, stolen[index])
        return deliver(message)

    grid.messages.append(steal)
    federation.run()

    run = ServerRunView(federation)
    shares = {}
    for reader, sealed, context in run.shares_of(victim):
        if reader in stolen:
            key = run.reader_key(stolen[reader])
            shares[run.point(reader)] = open_share(sealed, key, context)
        else:
            for home in stolen.values():
                with pytest.raises(KeyCeremonyError):
                    open_share(sealed, run.reader_key(home), context)
    assert len(shares) == len(told) == 3
    with pytest.raises(SharingError):
        reconstruct(shares, run.task.threshold)

    # What all survivors opened gives the sum of their keys, and so of their updates, only:
    # under it the victim's own ciphertext, and any smaller sum, is noise.
    opened = {
        run.point(index): open_opening(
            key.sealed, run.group_key, run.task.opening_context(run.manifest, run.address(index))
        )
        for index, (key,) in openings_in(replies_of(federation, "evaluate", 1)).items()
    }
    summed = reconstruct(opened, run.task.threshold).secret
    own = sum(told[node.address] for node in colluders)
    for secret in (summed, summed - own):
        key = OneTimeKey.of_sum(secret, run.task.one_time_seed(1, 1))
        with pytest.raises(BadOpening):
            run.task.backend.decrypt(run.ciphertext_of(victim), key)


class ServerRunView:
    """The adversary's view of round 1: what went over the wire, read with stolen keys."""

    def __init__(self, federation):
        self.federation = federation
        home = federation.nodes[9].home
        self.group_key = home.task(federation.task_id).shared_key
        self.task = task_context(federation, self.group_key)
        self.manifest = federation.bundle().rounds[0].manifest
        self.orders = [wire.parse_order(content) for _, content in federation.grid.sent]
        self.updates = {
            index: wire.parse_train_reply(reply.content)
            for index, (reply,) in replies_of(federation, "train", 1).items()
        }
        train = next(order for order in self.orders if isinstance(order, TrainOrder))
        self.readers = {s.node: s.statement.public_key for s in train.readers}

    def address(self, index):
        return self.federation.nodes[index].address

    def index(self, address):
        return next(n.index for n in self.federation.nodes if n.address == address)

    def point(self, index):
        return self.task.point(self.address(index))

    def reader_key(self, home):
        folder = home / "tasks" / self.federation.task_id
        return SealingKey.load(folder / "reader-1-1.key")

    def shares_of(self, dealer):
        for share in self.updates[dealer.index].shares:
            context = self.task.share_context(
                1,
                1,
                dealer=dealer.address,
                reader=share.node,
                reader_key=self.readers[share.node],
            )
            yield self.index(share.node), share.sealed, context

    def ciphertext_of(self, node):
        frame = self.updates[node.index].frame
        context = self.task.frame(1, 1, node.address)
        seeded = parse_update(frame, context, self.task.parameters, self.task.layout)
        return self.task.backend.expand(seeded)


def task_context(federation, group_key):
    return TaskContext(
        task_id=federation.task_id,
        domain=federation.stage.deployment.domain,
        terms=federation.terms,
        roster=federation.roster,
        key_id=group_key.key_id,
    )
