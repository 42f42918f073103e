"""The test vectors of docs/protocol.md, computed by this package.

``python tests/vectors/vector_cases.py`` rewrites the files beside it after a change of the
protocol; the tests compare the files with what the code gives, and with a second
implementation that shares no code with the first.
"""

import json
import sys
from pathlib import Path

import numpy as np
from answer_vectors import answers
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from eth_utils.crypto import keccak
from one_time_vectors import one_time_key
from receipt_vectors import receipt

from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext, add
from twopm_flower.privacy.frame import FrameContext, encode_aggregate, encode_update
from twopm_flower.privacy.key_deal import DealContext, KeyBox, accept
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.masking import mask, unmask_sum
from twopm_flower.privacy.packing import pack
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.quantise import quantise
from twopm_flower.privacy.residues import MODULUS, challenges, fingerprint
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.chaining import next_head
from twopm_flower.records.digest import PREFIX, ZERO_DIGEST, tagged_digest
from twopm_flower.records.manifest import (
    Exclusion,
    OpenedMetrics,
    RoundManifest,
    Survivor,
    updates_root,
)
from twopm_flower.records.merkle import update_leaf
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
from twopm_flower.records.terms import (
    ArrayTerm,
    Configuration,
    MetricTerm,
    TaskTerms,
    data_commitment,
    model_digest,
)
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.verify.expanded import encode_expanded

FOLDER = Path(__file__).parent
DOMAIN = Domain(chain_id=2_718_281_828, verifying_contract="0x" + "00" * 19 + "22")
SIGNERS = [LocalSigner(bytes([number]) * 32) for number in (1, 2, 3)]
SEALING = [
    SealingKey(X25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in (11, 12, 13)
]
LAYOUT = Layout(
    (("weight", (1, 3)), ("bias", (1,))), (Metric("correct", 1, 1000.0), Metric("loss", 16, 2000.0))
)


def d(byte):
    """A digest of one repeated byte."""
    return "0x" + f"{byte:02x}" * 32


def digests():
    """Domain-separated SHA-256."""
    cases = [("update/v1", b""), ("manifest/v1", b"{}"), ("x", b"\0"), ("terms/v1", b"a" * 100)]
    return {
        "prefix": PREFIX,
        "cases": [
            {"tag": tag, "data": data.hex(), "digest": tagged_digest(tag, data)}
            for tag, data in cases
        ],
    }


def canonical():
    """Canonical JSON of values that are easily written in other ways."""
    values = [
        {"b": 1, "a": [None, True, "\u20ac\n"]},
        [0.1, 1e30, 1e-7, 4.0, -0.5, 2**53 - 1],
        {"\u20ac": 1, "\r": 2, "1": 3, "\U0001f600": 4, "\ufb33": 5},
    ]
    return [{"json": json.dumps(v), "canonical": canonical_bytes(v).hex()} for v in values]


def some_terms():
    """The terms of a small task."""
    parameters = AdditiveParameters.derive("bfv", 10)
    weights = np.arange(4, dtype="<f4").tobytes()
    return TaskTerms(
        title="Vectors",
        trust_mode="shared-key",
        rounds=3,
        min_contributors=2,
        quorum=2,
        max_samples=500,
        clip=1.0,
        parameters=parameters.to_dict(),
        parameters_id=parameters.identifier,
        arrays=tuple(ArrayTerm(name=name, shape=shape) for name, shape in LAYOUT.arrays),
        train_metrics=(
            MetricTerm(name="correct", scale=1, maximum=1000.0),
            MetricTerm(name="loss", scale=16, maximum=2000.0, weighted=True),
        ),
        evaluation_metrics=(MetricTerm(name="num-examples", scale=1, maximum=1000.0),),
        layout_digest=LAYOUT.digest,
        initial_model=model_digest(LAYOUT.digest, weights),
        train_config={"epochs": 2, "lr": 0.1},
        evaluate_config={},
        run_config={},
        app_bundle=d(6),
        dataset={"name": "none"},
    )


def statements():
    """One statement of each kind, by the first signer."""
    node = SIGNERS[0].address
    return [
        Registration(node=node, sealing_key=SEALING[0].public, nonce=2, deadline=2**40),
        Departure(node=node, nonce=3, deadline=2**41),
        DataPublication(node=node, dataset=d(1), version=2, commitment=d(3), samples=4),
        Membership(
            task_id=d(1),
            terms_digest=d(2),
            node=node,
            samples=30,
            data_commitment=d(4),
            sealing_key=SEALING[0].public,
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
            fingerprints=(5, MODULUS - 1, 2**53),
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
    ]


def typed_data():
    """EIP-712: types, hashes and signatures by the private key 0x0101...01."""
    cases = []
    for statement in statements():
        members = ",".join(f"{kind} {name}" for name, kind in statement.TYPES.values())
        encoded = f"{type(statement).__name__}({members})"
        signed = sign(statement, SIGNERS[0], DOMAIN)
        cases.append(
            {
                "type": encoded,
                "type_hash": "0x" + keccak(encoded.encode()).hex(),
                "signing_hash": "0x" + statement.signing_hash(DOMAIN).hex(),
                "signed": signed.to_json(),
            }
        )
    return {
        "domain": DOMAIN.typed(),
        "private_key": "0x" + "01" * 32,
        "statements": cases,
    }


def roster():
    """A roster of two and its chained digest."""
    terms = some_terms()
    members = []
    for signer, sealing, samples in zip(SIGNERS[:2], SEALING[:2], (30, 40), strict=True):
        commitment = data_commitment(bytes([samples]) * 32, samples, b"rows")
        statement = Membership(
            task_id=d(1),
            terms_digest=terms.digest,
            node=signer.address,
            samples=samples,
            data_commitment=commitment,
            sealing_key=sealing.public,
        )
        members.append(
            Member(
                node=signer.address,
                samples=samples,
                data_commitment=commitment,
                sealing_key=sealing.public,
                signature=sign(statement, signer, DOMAIN).signature,
            )
        )
    record = Roster(members=tuple(members))
    return {"task_id": d(1), "roster": record.to_json(), "digest": record.digest}


def task():
    """Terms, layout, parameters, configuration and initial model with their digests."""
    terms = some_terms()
    configuration = Configuration(
        train_config={**terms.train_config, "server-round": 1}, run_config=terms.run_config
    )
    return {
        "terms": terms.to_json(),
        "terms_digest": terms.digest,
        "layout": LAYOUT.to_dict(),
        "configuration": configuration.to_json(),
        "configuration_digest": configuration.digest,
        "initial_weights": np.arange(4, dtype="<f4").tobytes().hex(),
    }


def _ciphertexts(parameters):
    rng = np.random.default_rng(5)
    count, rows = parameters.wire_coefficients(LAYOUT.size), parameters.rows(LAYOUT.size)
    out = []
    for _ in range(2):
        c0 = rng.integers(0, MODULUS, count, dtype=np.uint64)
        seeds = rng.integers(0, 256, (rows, 64), dtype=np.uint8)
        c1 = np.full((rows, 2048), int(rng.integers(1, MODULUS)), np.uint64)
        out.append((SeededCiphertext(c0, seeds), Ciphertext(c0, c1)))
    return out


def frames():
    """Frames and digests of two updates and their sum, for each backend.

    So that the file stays small, all residues of a c1 are the same number.
    """
    cases = []
    for backend in ("bfv", "plaintext", "one-time-key"):
        parameters = AdditiveParameters.derive(backend, 10)
        contexts = [
            FrameContext(
                task_id=d(1),
                round=2,
                attempt=3,
                node=signer.address,
                key_id=ZERO_DIGEST if backend == "plaintext" else d(10),
                parameters_id=parameters.identifier,
                layout_digest=LAYOUT.digest,
            )
            for signer in SIGNERS[:2]
        ]
        made = _ciphertexts(parameters)
        total = add([expanded for _, expanded in made], max_nodes=10)
        updates = []
        for context, (seeded, expanded) in zip(contexts, made, strict=True):
            updates.append(
                {
                    "node": context.node,
                    "frame": encode_update(context, seeded, backend).hex(),
                    "c0": [str(value) for value in expanded.c0.tolist()],
                    "c1_each": str(int(expanded.c1[0, 0])) if expanded.c1.size else None,
                    "expanded_frame_digest": tagged_digest(
                        "artifact/v1", encode_expanded(context, expanded, backend)
                    ),
                    "update_digest": expanded.digest(context),
                }
            )
        aggregate = encode_aggregate(contexts[0], total, backend)
        cases.append(
            {
                "backend": backend,
                "context": {
                    "task_id": d(1),
                    "round": 2,
                    "attempt": 3,
                    "key_id": contexts[0].key_id,
                    "parameters_id": parameters.identifier,
                    "layout_digest": LAYOUT.digest,
                },
                "parameters": parameters.to_dict(),
                "updates": updates,
                "aggregate_header_and_c0": aggregate[: 164 + 7 * total.c0.size].hex(),
                "aggregate_digest": total.aggregate_digest(contexts[0]),
            }
        )
    return cases


def packing():
    """Quantising and packing of one small update."""
    parameters = AdditiveParameters.derive("bfv", 10)
    update = np.array([0.5, -0.25, 1.5, -1.0])
    values, clipped = quantise(
        update, clip=1.0, limit=parameters.limit, samples=30, max_samples=100
    )
    metrics = LAYOUT.quantise_metrics({"correct": 25, "loss": 12.3}, limit=parameters.limit)
    vector = np.concatenate([values, metrics])
    return {
        "parameters": parameters.to_dict(),
        "update": update.tolist(),
        "clip": 1.0,
        "samples": 30,
        "max_samples": 100,
        "metrics": {"correct": 25, "loss": 12.3},
        "clipped": clipped,
        "vector": vector.tolist(),
        "coefficients": [str(value) for value in pack(vector, parameters).tolist()],
    }


def manifest():
    """A manifest, its root, its digest and the challenges that follow from it."""
    order = sorted(SIGNERS, key=lambda signer: signer.address.lower())
    survivors = tuple(
        Survivor(node=signer.address, update_digest=d(20 + n)) for n, signer in enumerate(order[:2])
    )
    record = RoundManifest(
        task_id=d(1),
        round=2,
        attempt=3,
        previous_manifest=d(2),
        terms_digest=d(3),
        roster_digest=d(4),
        trust_mode="shared-key",
        app_bundle=d(5),
        config_digest=d(6),
        base_model=d(7),
        key_id=d(8),
        parameters_id=d(9),
        layout_digest=d(10),
        survivors=survivors,
        exclusions=(Exclusion(node=order[2].address, reason="late", detail="no reply"),),
        samples=70,
        updates_root=updates_root(d(1), 2, 3, survivors),
        aggregate_digest=d(11),
    )
    metrics = OpenedMetrics(task_id=d(1), round=2, sums={"correct": 51, "loss": 700})
    return {
        "manifest": record.to_json(),
        "digest": record.digest,
        "leaves": [
            "0x" + update_leaf(d(1), 2, 3, s.node, s.update_digest).hex() for s in survivors
        ],
        "challenges": [str(rho) for rho in challenges(record.digest)],
        "head_after_zero": next_head(ZERO_DIGEST, record),
        "head_after_that": next_head(next_head(ZERO_DIGEST, record), record),
        "metrics": metrics.to_json(),
        "metrics_digest": metrics.digest,
    }


def fingerprints():
    """Fingerprints of residues: short ones, and more than one block of them."""
    cases = []
    for residues, rho in (
        ([1, 2, 3], 10),
        ([MODULUS - 1] * 4, MODULUS - 1),
        ([0, 0, 5], 123_456_789_012_345),
    ):
        vector = np.array(residues, np.uint64)
        cases.append(
            {
                "residues": [str(value) for value in residues],
                "rho": str(rho),
                "fingerprint": str(fingerprint(vector, rho)),
            }
        )
    many = np.arange(40_000, dtype=np.uint64)
    return {
        "modulus": str(MODULUS),
        "cases": cases,
        "counting_to_40000": str(fingerprint(many, 987_654_321_098_765)),
    }


def masking():
    """Masked evaluations of three nodes and the sum that opens."""
    nodes = [signer.address for signer in SIGNERS]
    context = canonical_bytes({"closing": False, "manifest": d(4), "model_round": 1, "task": d(1)})
    values = ([20, 17, 3], [21, 18, 4], [22, 19, 5])
    masked = [
        mask(
            row,
            own_address=nodes[own],
            own_key=SEALING[own],
            peers=[(nodes[n], SEALING[n].public) for n in range(3) if n != own],
            context=context,
        )
        for own, row in enumerate(values)
    ]
    return {
        "context": context.hex(),
        "nodes": [
            {
                "address": node,
                "private_key": "0x" + f"{byte:02x}" * 32,
                "public_key": sealing.public,
                "values": row,
                "masked": [f"0x{int(word):016x}" for word in vector],
            }
            for node, byte, sealing, row, vector in zip(
                nodes, (11, 12, 13), SEALING, values, masked, strict=True
            )
        ],
        "sums": list(unmask_sum(masked)),
    }


def key_box():
    """A box that was sealed once, for sealing is randomised, and what it opens to."""
    stored = json.loads((FOLDER / "key_box.json").read_text())["vectors"]
    context = DealContext(
        chain_id=DOMAIN.chain_id,
        contract=DOMAIN.verifying_contract,
        task_id=d(1),
        roster_digest=d(2),
        dealer=SIGNERS[0].address,
    )
    node = SIGNERS[1].address
    key = accept(
        KeyBox(node, stored["box"]),
        own_key=SEALING[1],
        own_node=node,
        context=context,
        key_id=stored["key_id"],
    )
    return {
        "reader": node,
        "private_key": "0x" + f"{12:02x}" * 32,
        "info": context.bytes_for(node).hex(),
        "box": stored["box"],
        "payload": key.to_bytes().hex(),
        "key_id": key.key_id,
    }


CASES = {
    "digests": digests,
    "canonical": canonical,
    "typed_data": typed_data,
    "roster": roster,
    "task": task,
    "frames": frames,
    "packing": packing,
    "manifest": manifest,
    "fingerprints": fingerprints,
    "masking": masking,
    "key_box": key_box,
    "one_time_key": one_time_key,
    "receipt": receipt,
    "answers": answers,
}


def main():
    """Rewrite all files."""
    for name, make in CASES.items():
        text = json.dumps({"about": make.__doc__, "vectors": make()}, indent=1) + "\n"
        (FOLDER / f"{name}.json").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
