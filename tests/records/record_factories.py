"""Small makers of the records that these tests are about."""

from twopm_flower.records.inference import PredictionReceipt, PredictionRequest
from twopm_flower.records.manifest import Exclusion, RoundManifest, Survivor, updates_root
from twopm_flower.records.roster import Member, Roster
from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Domain,
    EvaluationStatement,
    FingerprintStatement,
    KeyDeal,
    Membership,
    ModelStatement,
    OpeningStatement,
    ReaderKey,
    Registration,
    UpdateStatement,
    sign,
)
from twopm_flower.records.terms import ArrayTerm, MetricTerm, TaskTerms
from twopm_flower.signer.keystore import LocalSigner

DOMAIN = Domain(chain_id=2_718_281_828, verifying_contract="0x" + "00" * 19 + "22")
SIGNER = LocalSigner(bytes([1]) * 32)
OTHER = LocalSigner(bytes([2]) * 32)


def d(byte):
    """A digest of one repeated byte."""
    return "0x" + f"{byte:02x}" * 32


def statements(node=SIGNER.address):
    """One statement of each kind, every field another value."""
    return (
        Registration(node=node, sealing_key=d(1), nonce=2, deadline=2**53 - 1),
        Departure(node=node, nonce=3, deadline=2**41),
        DataPublication(node=node, dataset=d(1), version=2, commitment=d(3), samples=4),
        Membership(
            task_id=d(1),
            terms_digest=d(2),
            node=node,
            samples=3,
            data_commitment=d(4),
            sealing_key=d(5),
        ),
        KeyDeal(task_id=d(1), node=node, roster_digest=d(2), key_id=d(3), boxes_digest=d(4)),
        UpdateStatement(
            task_id=d(1),
            round=2,
            attempt=3,
            node=node,
            terms_digest=d(4),
            roster_digest=d(5),
            app_bundle=d(6),
            config_digest=d(7),
            previous_manifest=d(8),
            base_model=d(9),
            key_id=d(10),
            parameters_id=d(11),
            layout_digest=d(12),
            update_digest=d(13),
            shares_root=d(14),
        ),
        FingerprintStatement(
            task_id=d(1),
            round=2,
            attempt=3,
            node=node,
            manifest_digest=d(4),
            fingerprints=(5, 6, 2**64 - 1),
        ),
        ReaderKey(task_id=d(1), round=2, attempt=3, node=node, public_key=d(4)),
        OpeningStatement(
            task_id=d(1),
            round=2,
            attempt=3,
            node=node,
            manifest_digest=d(4),
            opening_digest=d(5),
        ),
        EvaluationStatement(
            task_id=d(1),
            model_round=0,
            node=node,
            manifest_digest=d(2),
            closing=True,
            masked=(3, 2**64 - 1),
        ),
        ModelStatement(
            task_id=d(1), round=2, manifest_digest=d(3), model_digest=d(4), metrics_digest=d(5)
        ),
        PredictionRequest(
            service=OTHER.address,
            model_digest=d(1),
            parameters_id=d(2),
            request_digest=d(3),
            rows=4,
            issued_at=5,
        ),
        PredictionReceipt(
            task_id=d(1),
            card_digest=d(2),
            model_digest=d(3),
            parameters_id=d(4),
            requester=OTHER.address,
            request_digest=d(5),
            response_digest=d(6),
            mask_commitment=d(7),
            issuer=SIGNER.address,
            rows=8,
            price=9,
            issued_at=10,
        ),
    )


def a_member(signer, samples=50):
    """A member that signed its own membership."""
    statement = Membership(
        task_id=d(1),
        terms_digest=d(2),
        node=signer.address,
        samples=samples,
        data_commitment=d(samples % 256),
        sealing_key=d(samples % 255),
    )
    signed = sign(statement, signer, DOMAIN)
    return Member(
        node=signer.address,
        samples=samples,
        data_commitment=statement.data_commitment,
        sealing_key=statement.sealing_key,
        signature=signed.signature,
    )


def a_roster():
    return Roster(members=(a_member(SIGNER, 50), a_member(OTHER, 60)))


def terms_fields(**changes):
    fields = {
        "title": "Test",
        "trust_mode": "shared-key",
        "rounds": 5,
        "min_contributors": 3,
        "quorum": 2,
        "max_samples": 100,
        "clip": 1.0,
        "parameters": {"backend": "bfv"},
        "parameters_id": d(1),
        "arrays": (ArrayTerm(name="weight", shape=(1, 40)),),
        "train_metrics": (MetricTerm(name="correct", scale=1, maximum=1000.0),),
        "evaluation_metrics": (),
        "layout_digest": d(2),
        "initial_model": d(3),
        "train_config": {"lr": 0.1},
        "evaluate_config": {},
        "run_config": {},
        "app_bundle": d(4),
        "dataset": {},
    }
    return {**fields, **changes}


def some_terms(**changes):
    return TaskTerms(**terms_fields(**changes))


def addresses(count):
    """Distinct addresses, sorted as manifests sort them."""
    nodes = [LocalSigner(bytes([10 + number]) * 32).address for number in range(count)]
    return sorted(nodes, key=str.lower)


def manifest_fields(survivors=3, excluded=1, **changes):
    nodes = addresses(survivors + excluded)
    ins = tuple(
        Survivor(node=node, update_digest=d(number + 1))
        for number, node in enumerate(nodes[:survivors])
    )
    fields = {
        "task_id": d(1),
        "round": 2,
        "attempt": 1,
        "previous_manifest": d(2),
        "terms_digest": d(3),
        "roster_digest": d(4),
        "trust_mode": "shared-key",
        "app_bundle": d(5),
        "config_digest": d(6),
        "base_model": d(7),
        "key_id": d(8),
        "parameters_id": d(9),
        "layout_digest": d(10),
        "survivors": ins,
        "exclusions": tuple(
            Exclusion(node=node, reason="late", detail="no reply") for node in nodes[survivors:]
        ),
        "samples": 150,
        "updates_root": updates_root(d(1), 2, 1, ins),
        "aggregate_digest": d(11),
    }
    return {**fields, **changes}


def a_manifest(**changes):
    return RoundManifest(**manifest_fields(**changes))
