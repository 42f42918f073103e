import pytest
from chain_stage import digest, new_node, refused


@pytest.fixture(scope="session")
def holder(stage):
    return stage.registered_nodes(1)[0]


def test_versions_are_listed_in_order_and_by_dataset(stage):
    node = stage.registered_nodes(1)[0]
    assert stage.connector.data_commitments(node.address) == ()
    made = [stage.publish(node, 1), stage.publish(node, 2, samples=30)]
    stage.publish(node, 1, dataset=digest(51))
    listed = stage.connector.data_commitments(node.address)
    assert [(one.dataset, one.version, one.samples) for one in listed] == [
        (digest(50), 1, 20),
        (digest(50), 2, 30),
        (digest(51), 1, 20),
    ]
    assert stage.connector.data_commitments(node.address, digest(50)) == listed[:2]
    assert stage.connector.data_commitments(node.address, digest(52)) == ()
    for receipt, one in zip(made, listed[:2], strict=True):
        assert one.node == node.address
        assert one.commitment == digest(500 + one.version)
        assert (one.block_number, one.transaction_hash) == (
            receipt.block_number,
            receipt.transaction_hash,
        )
        assert one.block_hash == stage.connector.block_hash(one.block_number)


def test_a_version_is_never_replaced_and_none_is_left_out(stage):
    node = stage.registered_nodes(1)[0]
    with refused("WrongVersion"):
        stage.publish(node, 2)
    first = stage.publication(node, 1)
    stage.connector.publish_data(node.address, **first)
    with refused("WrongVersion"):
        stage.connector.publish_data(node.address, **first)
    with refused("WrongVersion"):
        stage.publish(node, 1, commitment=digest(9))
    with refused("WrongVersion"):
        stage.publish(node, 3)
    listed = stage.connector.data_commitments(node.address)
    assert [(one.version, one.commitment) for one in listed] == [(1, digest(501))]


def test_an_outsider_commits_nobody_to_data(stage, holder):
    outsider = stage.registered_nodes(1)[0]
    values = stage.publication(outsider, 1)
    with refused("WrongSigner"):
        stage.connector.publish_data(holder.address, **values)


@pytest.mark.parametrize(
    "change",
    [{"dataset": digest(60)}, {"commitment": digest(9)}, {"samples": 21}],
    ids=lambda change: next(iter(change)),
)
def test_a_commitment_holds_for_what_was_signed_only(stage, holder, change):
    values = stage.publication(holder, 1) | change
    with refused("WrongSigner"):
        stage.connector.publish_data(holder.address, **values)


def test_who_is_not_registered_commits_to_nothing(stage):
    with refused("NotRegistered"):
        stage.publish(new_node(), 1)
    gone = stage.registered_nodes(1)[0]
    stage.depart(gone)
    with refused("NotRegistered"):
        stage.publish(gone, 1)


@pytest.mark.parametrize(
    ("change", "error_name"),
    [
        ({"dataset": digest(0)}, "ZeroDigest"),
        ({"commitment": digest(0)}, "ZeroDigest"),
        ({"samples": 0}, "ZeroSamples"),
    ],
)
def test_a_commitment_to_nothing_is_refused(stage, holder, change, error_name):
    with refused(error_name):
        stage.publish(holder, 1, **change)


def test_a_stranger_may_relay_what_a_node_signed(stage, stranger):
    node = stage.registered_nodes(1)[0]
    stranger.publish(node, 1)
    assert stage.connector.data_commitments(node.address)[0].version == 1
