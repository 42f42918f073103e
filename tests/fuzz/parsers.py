"""Every parser of bytes that come from another party, with valid inputs to start from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from mutators import BYTES, FRAME, JSON, Change
from privacy_factories import a_context, a_layout, some_residues
from record_factories import DOMAIN, OTHER, SIGNER, a_roster, d, some_terms, statements
from run_simulator import simulate

from twopm_flower.federated.exchange import ModelReport
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.privacy.frame import (
    encode_aggregate,
    encode_update,
    parse_aggregate,
    parse_update,
)
from twopm_flower.privacy.key_deal import DealContext, KeyBox, Reader, accept, deal
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey
from twopm_flower.privacy.layout import Layout, layout_of
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.sealed_shares import (
    OpeningContext,
    ShareContext,
    open_opening,
    open_share,
    seal_opening,
    seal_share,
)
from twopm_flower.privacy.share_codec import pack_share, unpack_share
from twopm_flower.records.bundle import (
    DealtKey,
    Deployment,
    JoinRequest,
    NodeCard,
    RunBundle,
    SealedBoxes,
)
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import sign, signed_type
from twopm_flower.records.terms import TaskTerms
from twopm_flower.verify.expanded import encode_expanded, parse_expanded


def nothing(_value: Any) -> None:
    """Do nothing further with a value."""


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes
    ----------
    name : str
    inputs : sequence of bytes
        Valid ones.
    read : callable
        From bytes to a value, or one of our errors.
    write : callable, optional
        From the value back to the only bytes that give it; None where that needs secrets.
    use : callable
        What is done with a value first; it may raise our errors, too.
    changes : sequence of Change
        How inputs are changed.
    weight : int
        Share of the cases.
    """

    name: str
    inputs: Sequence[bytes]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None = None
    use: Callable[[Any], Any] = nothing
    changes: Sequence[Change] = JSON
    weight: int = 1


def frame_parsers() -> list[Parser]:
    found = []
    for backend in ("bfv", "plaintext", "one-time-key"):
        for size in (41, 4500):
            parameters, layout = AdditiveParameters.derive(backend, 10, 2), a_layout(size)
            context = a_context(parameters, layout)
            contexts = [context, replace(context, round=4), replace(context, node="0x" + "0a" * 20)]
            for what, make, encode, parse in (
                ("update", some_seeded, encode_update, parse_update),
                ("aggregate", some_ciphertext, encode_aggregate, parse_aggregate),
                ("expanded", some_ciphertext, encode_expanded, parse_expanded),
            ):
                write = partial(_encode, encode, context, backend)
                found.append(
                    Parser(
                        f"{what} {backend} {size}",
                        [
                            encode(c, make(parameters, layout.size, seed), backend)
                            for seed, c in enumerate(contexts)
                        ],
                        partial(_parse, parse, context, parameters, layout),
                        write,
                        changes=FRAME,
                        weight=200 if size == 41 else 20,
                    )
                )
    return found


def some_seeded(parameters: AdditiveParameters, size: int, seed: int) -> SeededCiphertext:
    source = np.random.default_rng(seed)
    c0 = some_residues(source, parameters.wire_coefficients(size))
    return SeededCiphertext(c0, source.integers(0, 256, (parameters.rows(size), 64), np.uint8))


def some_ciphertext(parameters: AdditiveParameters, size: int, seed: int) -> Ciphertext:
    source = np.random.default_rng(seed)
    c0 = some_residues(source, parameters.wire_coefficients(size))
    return Ciphertext(c0, some_residues(source, parameters.rows(size), 2048))


def _encode(encode: Any, context: Any, backend: str, value: Any) -> bytes:
    return encode(context, value, backend)


def _parse(parse: Any, context: Any, parameters: Any, layout: Any, data: bytes) -> Any:
    return parse(data, context, parameters, layout)


def record_parsers() -> list[Parser]:
    runs = [
        simulate(nodes=3, rounds=1, repeated_round=None).bundle,
        simulate(nodes=4, rounds=2, repeated_round=1, trust_mode="one-time-key").bundle,
    ]
    signed = [sign(s, SIGNER, DOMAIN) for s in statements(SIGNER.address)]
    by_kind: dict[type, list[Any]] = {}
    for one in [*signed, *(u for run in runs for r in run.rounds for u in r.updates)]:
        by_kind.setdefault(type(one.statement), []).append(one)
    cards = [
        NodeCard(name=name, registration=one)
        for one in by_kind[_statement("Registration")]
        for name in ("hospital", "é")
    ]
    memberships = by_kind[_statement("Membership")]
    requests = [
        JoinRequest(registration=card.registration, membership=memberships[0]) for card in cards
    ]
    boxes = SealedBoxes(backend="bfv", boxes={SIGNER.address: "0x0102", OTHER.address: "0x"})
    dealt = DealtKey(deal=by_kind[_statement("KeyDeal")][0], boxes=boxes)
    reports = [
        ModelReport(model=model, metrics=r.metrics)
        for run in runs
        for r in run.rounds
        for model in r.models
        if r.metrics is not None
    ]
    found = [
        _records("bundle", RunBundle, runs, weight=1),
        _records("manifest", RoundManifest, [r.manifest for run in runs for r in run.rounds], 20),
        _records("terms", TaskTerms, [some_terms(), *(run.terms for run in runs)], 20, _derive),
        _records("roster", Roster, [a_roster(), *(run.roster for run in runs)], 20),
        _records("deployment", Deployment, [run.deployment for run in runs], 10),
        _records("node card", NodeCard, cards, 20, lambda card: card.registration.check(DOMAIN)),
        _records("join request", JoinRequest, requests, 10),
        _records("sealed boxes", SealedBoxes, [boxes], 10, lambda value: value.digest),
        _records("dealt key", DealtKey, [dealt], 10, lambda value: value.deal.check(DOMAIN)),
        _records("model report", ModelReport, reports, 10),
    ]
    for kind, examples in by_kind.items():
        name = f"signed {kind.__name__}"
        found.append(
            _records(name, signed_type(kind), examples, 10, lambda value: value.check(DOMAIN))
        )
    return found


def _statement(name: str) -> type:
    return next(type(s) for s in statements() if type(s).__name__ == name)


def _derive(terms: TaskTerms) -> None:
    AdditiveParameters.from_dict(terms.parameters)
    layout_of(terms)


def _records(
    name: str, kind: Any, examples: Sequence[Any], weight: int, use: Callable[..., Any] = nothing
) -> Parser:
    return Parser(
        name,
        [example.to_bytes() for example in examples],
        kind.from_bytes,
        lambda value: value.to_bytes(),
        use,
        weight=weight,
    )


def secret_parsers() -> list[Parser]:
    """Return the parsers of boxes and of what is in them."""
    sealing = SealingKey(X25519PrivateKey.from_private_bytes(bytes([7]) * 32))
    key = SharedKey("one-time-key", SecretBytes(bytes(range(32))))
    share = np.arange(2048, dtype=np.uint32) * 32
    other = np.full(2048, 65536, np.uint32)
    place = {"chain_id": 5, "contract": "0x" + "22" * 20, "task_id": d(1)}
    attempt = {**place, "round": 1, "attempt": 1}
    ceremony = DealContext(**place, roster_digest=d(3), dealer=OTHER.address)
    (box,) = deal(key, [Reader(SIGNER.address, sealing.public)], ceremony)
    shared = ShareContext(
        **attempt,
        roster_digest=d(3),
        threshold=3,
        dealer=OTHER.address,
        reader=SIGNER.address,
        reader_key=sealing.public,
    )
    opened = OpeningContext(**attempt, manifest_digest=d(4), node=OTHER.address)

    def open_box(data: bytes) -> SharedKey:
        text = data.decode("latin-1")
        return accept(
            KeyBox(SIGNER.address, text),
            own_key=sealing,
            own_node=SIGNER.address,
            context=ceremony,
            key_id=key.key_id,
        )

    return [
        Parser(
            "shared key",
            [key.to_bytes(), SharedKey("bfv", SecretBytes(bytes(512))).to_bytes()],
            SharedKey.from_bytes,
            SharedKey.to_bytes,
            weight=10,
        ),
        Parser("key box", [box.box.encode()], open_box, changes=BYTES, weight=5),
        Parser(
            "share",
            [pack_share(share), pack_share(other)],
            unpack_share,
            pack_share,
            changes=BYTES,
            weight=20,
        ),
        Parser(
            "sealed share",
            [seal_share(one, sealing.public, shared) for one in (share, other)],
            lambda data: open_share(data, sealing, shared),
            changes=BYTES,
            weight=5,
        ),
        Parser(
            "sealed opening",
            [seal_opening(one, key, opened) for one in (share, other)],
            lambda data: open_opening(data, key, opened),
            changes=BYTES,
            weight=10,
        ),
    ]


def description_parsers() -> list[Parser]:
    """Return the parsers of descriptions that stand inside other records."""
    parameters = [
        AdditiveParameters.derive(backend, nodes, fields).to_dict()
        for backend, nodes, fields in (("bfv", 10, 2), ("plaintext", 3, 1), ("one-time-key", 50, 2))
    ]
    layouts = [a_layout(41).to_dict(), a_layout(9, ()).to_dict()]
    values = [None, -1.5, "é\n", [1, 2.5, [True]], {"a": {"b": [], "c": 1e-7}, "é": 1e21}]
    return [
        Parser(
            "canonical JSON",
            [canonical_bytes(value) for value in [*values, *parameters, *layouts]],
            parse_canonical,
            canonical_bytes,
            weight=60,
        ),
        Parser(
            "parameters",
            [canonical_bytes(value) for value in parameters],
            lambda data: AdditiveParameters.from_dict(parse_canonical(data)),
            lambda value: canonical_bytes(value.to_dict()),
            lambda value: value.identifier,
            weight=10,
        ),
        Parser(
            "layout",
            [canonical_bytes(value) for value in layouts],
            lambda data: Layout.from_dict(parse_canonical(data)),
            lambda value: canonical_bytes(value.to_dict()),
            lambda value: value.digest,
            weight=10,
        ),
    ]


@cache
def all_parsers() -> dict[str, Parser]:
    """Return all parsers by their names."""
    found = [
        *frame_parsers(), *record_parsers(), *secret_parsers(), *description_parsers(),
    ]  # fmt: skip
    for parser in found:
        for data in parser.inputs[:1]:
            value = parser.read(data)
            if parser.write is not None and parser.write(value) != data:
                raise AssertionError(f"{parser.name}: its own input is not written back")
    return {parser.name: parser for parser in found}
