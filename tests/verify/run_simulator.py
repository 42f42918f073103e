"""A whole run in memory: real signatures, masks and sums, a chain of two dictionaries.

A test changes one thing that a party says or does, by a hook, and everything that follows
is made consistently; or it changes the finished bundle or chain. Hooks are functions from
the honest value to the one that is used:

update(round, node, fields), manifest(round, attempt, fields), aggregate(round, ciphertexts),
fingerprints(node, challenges, values), opening(round, node, fields),
model(round, node, fields), sums(round, sums), counts(model_round, node, values)
"""

import base64
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from memory_chain import MemoryChain, word
from simulated_task import METRICS, SimulatedTask

from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.frame import encode_aggregate
from twopm_flower.privacy.masking import mask
from twopm_flower.privacy.packing import pack
from twopm_flower.privacy.residues import MODULUS, challenges, fingerprint
from twopm_flower.records.bundle import RoundBundle, RunBundle, SupersededAttempt
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import (
    Exclusion,
    OpenedMetrics,
    RoundManifest,
    Survivor,
    updates_root,
)
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    OpeningStatement,
    UpdateStatement,
    sign,
)
from twopm_flower.records.terms import Configuration
from twopm_flower.verify.expanded import encode_expanded


@dataclass
class Simulation:
    """A finished run."""

    bundle: RunBundle
    chain: MemoryChain


class RunSimulator(SimulatedTask):
    """Builds a run; see the module's first lines for the hooks."""

    def __init__(
        self,
        *,
        nodes=4,
        rounds=3,
        planned=None,
        trust_mode="shared-key",
        colluders=None,
        repeated_round=2,
        vanished_round=None,
        ciphertexts=True,
        final=True,
        dealer=0,
        room=None,
        max_samples=500,
        hooks=None,
    ):
        super().__init__(
            nodes=nodes,
            planned=planned or rounds,
            trust_mode=trust_mode,
            colluders=int(trust_mode == "one-time-key") if colluders is None else colluders,
            dealer=dealer,
            room=room or nodes,
            max_samples=max_samples,
        )
        self.rng = np.random.default_rng(7)
        self.hooks = hooks or {}
        self.rounds = rounds
        self.planned = planned or rounds
        self.repeated_round = repeated_round
        self.vanished_round = vanished_round
        self.with_ciphertexts = ciphertexts
        self.final = final
        self.aggregates = {}
        self.ciphertexts = {}

    def build(self):
        """Return the finished run."""
        chain = self.empty_chain()
        previous, model = ZERO_DIGEST, self.terms.initial_model
        entries = []
        for number in range(1, self.rounds + 1):
            entry = self._round(number, previous, model, chain)
            entries.append(entry)
            previous = entry.manifest.digest
            if entry.models:
                model = entry.models[0].statement.model_digest
        closing, finalisation = (), None
        if self.final and self.rounds == self.planned:
            last = entries[-1]
            closing = self._evaluations(last.manifest, self.rounds, closing=True)
            finalisation = chain.finalise(last.models[0].statement, len(last.models))
        bundle = RunBundle(
            deployment=self.deployment,
            task_id=self.task_id,
            terms=self.terms,
            roster=self.roster,
            key_deal=self.key_deal(),
            rounds=tuple(entries),
            closing=closing,
            finalisation=finalisation,
            aggregates=self.aggregates,
            ciphertexts=self.ciphertexts if self.with_ciphertexts else {},
        )
        return Simulation(bundle, chain)

    def _said(self, what, honest, *where):
        hook = self.hooks.get(what)
        return honest if hook is None else hook(*where, honest)

    def _round(self, number, previous, model, chain):
        superseded = ()
        attempt, nodes = 1, self.nodes
        if number == self.repeated_round:
            first, _, _ = self._attempt(number, 1, nodes, previous, model)
            superseded = (SupersededAttempt(manifest=first, record=chain.record(first)),)
            attempt, nodes = 2, self.nodes[:-1]
        manifest, updates, ciphertexts = self._attempt(number, attempt, nodes, previous, model)
        self._keep(manifest, ciphertexts)
        # Sent its update and nothing after it, until the next round.
        self.gone = self.nodes[1].address if number == self.vanished_round else None
        opened = number < self.rounds or self.rounds == self.planned
        metrics = self._metrics(manifest) if opened else None
        return RoundBundle(
            manifest=manifest,
            superseded=superseded,
            updates=updates,
            fingerprints=self._fingerprints(manifest, ciphertexts),
            openings=self._openings(manifest) if opened else (),
            evaluations=self._evaluations(manifest, number - 1, closing=False),
            models=self._models(manifest, metrics) if opened else (),
            metrics=metrics,
            record=chain.record(manifest),
        )

    def _attempt(self, number, attempt, nodes, previous, model):
        setting = {
            "task_id": self.task_id,
            "round": number,
            "attempt": attempt,
            "terms_digest": self.terms.digest,
            "roster_digest": self.roster.digest,
            "app_bundle": self.terms.app_bundle,
            "config_digest": Configuration(
                train_config={**self.terms.train_config, "server-round": number},
                run_config=self.terms.run_config,
            ).digest,
            "previous_manifest": previous,
            "base_model": model,
            "key_id": self.key_id,
            "parameters_id": self.terms.parameters_id,
            "layout_digest": self.terms.layout_digest,
        }
        ciphertexts, signed = {}, {}
        for node in nodes:
            ciphertext = self._encrypt(node)
            digest = ciphertext.digest(self.frame(number, attempt, node.address))
            fields = {
                **setting,
                "node": node.address,
                "update_digest": digest,
                "shares_root": self._shares_root(number, attempt, node),
            }
            fields = self._said("update", fields, number, node.address)
            ciphertexts[node.address] = ciphertext
            signed[node.address] = sign(UpdateStatement(**fields), node.signer, self.domain)
        order = sorted(ciphertexts, key=str.lower)
        survivors = tuple(
            Survivor(node=node, update_digest=signed[node].statement.update_digest)
            for node in order
        )
        total = self._said(
            "aggregate",
            add(list(ciphertexts.values()), max_nodes=len(ciphertexts)),
            number,
            ciphertexts,
        )
        context = self.frame(number, attempt)
        fields = {
            **setting,
            "trust_mode": self.terms.trust_mode,
            "survivors": survivors,
            "exclusions": tuple(
                Exclusion(node=node.address, reason="late", detail="no reply within 60 s")
                for node in self.nodes
                if node.address not in ciphertexts
            ),
            "samples": self.roster.samples_of(order),
            "updates_root": updates_root(self.task_id, number, attempt, survivors),
            "aggregate_digest": total.aggregate_digest(context),
        }
        manifest = RoundManifest(**self._said("manifest", fields, number, attempt))
        self._total = total
        return manifest, tuple(signed[node] for node in order), ciphertexts

    def _encrypt(self, node):
        """Uniform residues, which is what a ciphertext looks like to a verifier."""
        parameters, layout = self.parameters, self.layout
        if parameters.backend != "plaintext":
            rows = parameters.rows(layout.size)
            count = parameters.coefficients if rows else parameters.wire_coefficients
            coefficients = count(layout.size)
            c0 = self.rng.integers(0, MODULUS, coefficients, dtype=np.uint64)
            return Ciphertext(c0, self.rng.integers(0, MODULUS, (rows, 2048), dtype=np.uint64))
        values = np.concatenate(
            [self.rng.integers(-100, 100, layout.array_size), self._train_values(node)]
        )
        packed = pack(values, parameters)
        c0 = np.where(packed < 0, packed + MODULUS, packed).astype(np.uint64)
        return Ciphertext(c0, np.empty((0, 2048), np.uint64))

    def _shares_root(self, number, attempt, node):
        if self.terms.trust_mode != "one-time-key":
            return ZERO_DIGEST
        return word(f"shares of {node.address} in {number}, {attempt}")

    @staticmethod
    def _train_values(node):
        return [node.samples - 5, node.samples, 400 * node.samples]

    def _keep(self, manifest, ciphertexts):
        backend = self.parameters.backend
        context = self.frame(manifest.round, manifest.attempt)
        frame = encode_aggregate(context, self._total, backend)
        self.aggregates[manifest.aggregate_digest] = base64.b64encode(frame).decode()
        for survivor in manifest.survivors:
            context = self.frame(manifest.round, manifest.attempt, survivor.node)
            frame = encode_expanded(context, ciphertexts[survivor.node], backend)
            self.ciphertexts[survivor.update_digest] = base64.b64encode(frame).decode()

    def _fingerprints(self, manifest, ciphertexts):
        signed = []
        for node in self._there(manifest):
            residues = ciphertexts[node.address].residues()
            points = challenges(manifest.digest)
            values = tuple(fingerprint(residues, rho) for rho in points)
            values = self._said("fingerprints", values, node.address, points)
            statement = FingerprintStatement(
                task_id=self.task_id,
                round=manifest.round,
                attempt=manifest.attempt,
                node=node.address,
                manifest_digest=manifest.digest,
                fingerprints=values,
            )
            signed.append(sign(statement, node.signer, self.domain))
        return tuple(signed)

    def _openings(self, manifest):
        if self.terms.trust_mode != "one-time-key":
            return ()
        signed = []
        for node in self._there(manifest):
            fields = {
                "task_id": self.task_id,
                "round": manifest.round,
                "attempt": manifest.attempt,
                "node": node.address,
                "manifest_digest": manifest.digest,
                "opening_digest": word(f"opening by {node.address} in {manifest.round}"),
            }
            fields = self._said("opening", fields, manifest.round, node.address)
            if fields is not None:
                signed.append(sign(OpeningStatement(**fields), node.signer, self.domain))
        return tuple(signed)

    def _metrics(self, manifest):
        values = np.sum([self._train_values(node) for node in self._in(manifest)], axis=0)
        names = [metric.name for metric in METRICS]
        sums = dict(zip(names, map(int, values), strict=True))
        return OpenedMetrics(
            task_id=self.task_id,
            round=manifest.round,
            sums=self._said("sums", sums, manifest.round),
        )

    def _models(self, manifest, metrics):
        signed = []
        for node in sorted(self.nodes, key=lambda node: node.address.lower()):
            if node.address == self.gone:
                continue
            fields = {
                "task_id": self.task_id,
                "round": manifest.round,
                "manifest_digest": manifest.digest,
                "model_digest": word(f"model {manifest.round}"),
                "metrics_digest": metrics.digest,
            }
            fields = self._said("model", fields, manifest.round, node.address)
            if fields is not None:
                signed.append(sign(ModelStatement(**fields), node.signer, self.domain))
        return tuple(signed)

    def _evaluations(self, manifest, model_round, *, closing):
        if self.gone in manifest.nodes:
            return ()  # the masks would not cancel
        signed = []
        group = self._in(manifest)
        context = canonical_bytes(
            {
                "closing": closing,
                "manifest": manifest.digest,
                "model_round": model_round,
                "task": self.task_id,
            }
        )
        for node in group:
            rows = node.samples // 5
            counts = self._said(
                "counts", (rows - model_round % 3, rows, 300 * rows), model_round, node.address
            )
            masked = mask(
                counts,
                own_address=node.address,
                own_key=node.sealing,
                peers=[(p.address, p.sealing.public) for p in group if p is not node],
                context=context,
            )
            statement = EvaluationStatement(
                task_id=self.task_id,
                model_round=model_round,
                node=node.address,
                manifest_digest=manifest.digest,
                closing=closing,
                masked=tuple(int(value) for value in masked),
            )
            signed.append(sign(statement, node.signer, self.domain))
        return tuple(signed)

    def _there(self, manifest):
        return [node for node in self._in(manifest) if node.address != self.gone]

    def _in(self, manifest):
        by_address = {node.address: node for node in self.nodes}
        return [by_address[address] for address in manifest.nodes]


def simulate(hooks=None, **options):
    """Return a finished run; see `RunSimulator` for the options. Its chain may be changed."""
    if hooks is not None:
        return RunSimulator(hooks=hooks, **options).build()
    honest = _honest(tuple(sorted(options.items())))
    return Simulation(honest.bundle, replace(honest.chain, records=list(honest.chain.records)))


@cache
def _honest(options):
    return RunSimulator(**dict(options)).build()
