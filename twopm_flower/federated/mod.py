"""`EncryptionMod`: the Flower mod that encrypts what leaves a node and checks what comes in."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from twopm_flower.chain.backends import deployment_of
from twopm_flower.config import default_home
from twopm_flower.errors import (
    ConfigError,
    ImpossibleSum,
    NodeBehind,
    ProtocolViolation,
    QuorumError,
    RecordError,
    SharingError,
    StartedOver,
    TwopmError,
    VerificationError,
)
from twopm_flower.federated import enrolment, wire
from twopm_flower.federated.active import working_for
from twopm_flower.federated.app_bundle import app_bundle_digest, running_app_folder
from twopm_flower.federated.ceremony import check_key
from twopm_flower.federated.chain_access import open_reader
from twopm_flower.federated.exchange import (
    Arrays,
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    PrepareOrder,
    TrainOrder,
)
from twopm_flower.federated.flower_internals import log_as_flower, with_content
from twopm_flower.federated.home import NodeHome
from twopm_flower.federated.session import NodeSession
from twopm_flower.federated.task import TaskContext
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import EvaluationStatement, Signed

log = logging.getLogger(__name__)

HOME_KEY = "twopm-home"
BEHIND = "twopm-behind:"
# The texts of these errors quote public records only; others may quote data or local paths.
_TOLD = (
    ImpossibleSum,
    ProtocolViolation,
    QuorumError,
    RecordError,
    SharingError,
    StartedOver,
    VerificationError,
)


class EncryptionMod:
    """Encrypts a node's updates and lets nothing else out; must be the first mod.

    For each message from ``EncryptedAggregation`` it checks what the server shows, decrypts
    the aggregate of the last round only if it is tied to the listed updates, lets the app
    train or evaluate on that model, and sends the encrypted update, or the signed
    fingerprints and the masked evaluation. Of the app's reply only the arrays and the metrics
    that the task declares are used, and those only encrypted or masked.

    The node's keys, trusted peers and pinned chain come from its home: ``twopm-home`` in the
    node configuration of the SuperNode, else ``$TWOPM_HOME``. In simulation each node gets a
    home of its own below ``$TWOPM_HOME/simulation``.

    Parameters
    ----------
    home : Path, optional
        The node's home, where it is known when the app is built.

    Examples
    --------
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[EncryptionMod()])

    Other mods go behind it and see the plain update. Flower's ``LocalDpMod`` handles train
    messages only, so it belongs to the train function::

        @app.train(mods=[LocalDpMod(1.0, 0.1, 10.0, 1e-5)])
    """

    def __init__(self, home: Path | None = None) -> None:
        self._home = home

    def __call__(self, msg: Message, ctxt: Context, call_next: ClientAppCallable) -> Message:
        """Handle one message; see the class."""
        log_as_flower()
        try:
            return Message(self._handle(msg, ctxt, call_next), reply_to=msg)
        except NodeBehind as error:
            log.warning("%s", error)
            return _refusal(msg, f"{BEHIND}{error.opened_round} {error}")
        except TwopmError as error:
            log.warning("no update is sent: %s", error)
            told = str(error) if isinstance(error, _TOLD) else "see the node's log"
            return _refusal(msg, f"{type(error).__name__}: {told}")
        except _AppFailedError as error:
            return _refusal(msg, f"the app failed ({error}): see the node's log")
        except Exception as error:
            # An error of the system may quote a path of this machine: its type is enough.
            log.exception("this node cannot answer")
            return _refusal(msg, f"{type(error).__name__}: see the node's log")

    def _handle(self, msg: Message, ctxt: Context, call_next: ClientAppCallable) -> RecordDict:
        def run_app(arrays: Arrays) -> RecordDict:
            inner = with_content(msg, wire.app_content(msg.content, arrays))
            try:
                reply = call_next(inner, ctxt)
            except Exception as error:
                # Whatever the app raises may quote data, so only its type leaves the node.
                log.exception("the app failed")
                raise _AppFailedError(type(error).__name__) from error
            if reply.has_error():
                log.warning("the app answered with an error: %s", reply.error.reason)
                raise _AppFailedError("error reply")
            return reply.content

        kind = wire.message_kind(msg.content)
        run_config = dict(ctxt.run_config)
        if kind in ("enrol", "join", "deal", "accept"):
            if not enrolment.simulated(ctxt.node_config):
                raise ProtocolViolation(
                    "the server wants to enrol this node; a deployed node joins through its "
                    "operator only",
                    hint="Run 'twopm node init' and 'twopm task join'.",
                )
            home = enrolment.simulation_home(ctxt.node_config, ctxt.node_id)
            return enrolment.answer(
                msg.content, home, run_config=run_config, app_bundle=_app_bundle(), run_app=run_app
            )
        order = wire.parse_order(msg.content)
        # Flower chooses the app's function by the message's type, we the step by its kind.
        expected = MessageType.TRAIN if isinstance(order, TrainOrder) else MessageType.EVALUATE
        if msg.metadata.message_type != expected:
            raise ProtocolViolation(
                f"a message of type {msg.metadata.message_type!r} carries an order for {expected!r}"
            )
        home = NodeHome(self._home_path(ctxt))
        folder = home.task(order_task(order))
        if not (folder.path / "terms.json").exists():
            raise ConfigError(
                f"the server runs task {folder.task_id}, which this node has not joined",
                hint="Run 'twopm task join', or check which server this SuperNode talks to.",
            )
        with folder.locked(), working_for(folder):
            session = _open_session(home, folder.task_id, run_config)
            return wire.reply_content(_step(session, order, run_app))

    def _home_path(self, ctxt: Context) -> Path:
        if self._home is not None:
            return self._home
        configured = ctxt.node_config.get(HOME_KEY)
        if configured is not None:
            return Path(str(configured)).expanduser()
        if enrolment.simulated(ctxt.node_config):
            return enrolment.simulation_home(ctxt.node_config, ctxt.node_id).path
        return default_home()


def order_task(order: wire.Order) -> str:
    """Return the task of an order, checked to be usable as a folder name.

    Raises
    ------
    ProtocolViolation
        Not a task id.
    """
    digits = order.task_id.removeprefix("0x")
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ProtocolViolation(f"{order.task_id[:80]!r} is not a task id")
    return "0x" + digits


def _step(
    session: NodeSession,
    order: wire.Order,
    run_app: Callable[[Arrays], RecordDict],
) -> Any:
    match order:
        case PrepareOrder():
            return session.guarded(lambda: session.prepare(order))
        case TrainOrder():
            model, reports = session.guarded(lambda: session.begin_train(order))
            kept = session.kept_reply(order, reports)
            if kept is not None:
                return kept
            content = run_app(session.whole(model))
            return session.finish_train(
                order, wire.trained_arrays(content), wire.reported_metrics(content), reports
            )
        case EvaluateOrder():
            model, reply = session.guarded(lambda: session.begin_evaluate(order))
            evaluation = _evaluation(
                session, order.manifest, session.whole(model), run_app, closing=False
            )
            return replace(reply, evaluation=evaluation)
        case CloseOrder():
            model, reports = session.guarded(lambda: session.begin_close(order))
            manifest = order.openings[-1].manifest
            evaluation = _evaluation(session, manifest, session.whole(model), run_app, closing=True)
            return EvaluateReply(fingerprint=None, evaluation=evaluation, reports=reports)


def _evaluation(
    session: NodeSession,
    manifest: RoundManifest,
    model: Arrays,
    run_app: Callable[[Arrays], RecordDict],
    *,
    closing: bool,
) -> Signed[EvaluationStatement] | None:
    # The round needs this node's signatures; a failing evaluation costs its metrics only.
    try:
        metrics = wire.reported_metrics(run_app(model))
        return session.finish_evaluate(manifest, metrics, closing=closing)
    except _AppFailedError as error:
        log.warning("no evaluation is sent: the app failed (%s)", error)
    except TwopmError as error:
        log.warning("no evaluation is sent: %s", error)
    return None


def _open_session(home: NodeHome, task_id: str, run_config: dict[str, Any]) -> NodeSession:
    folder = home.task(task_id)
    chain = home.settings.require_chain()
    plaintext = folder.terms.trust_mode == "plaintext"
    # A node that stopped says why, whether or not its key is still there.
    stopped = folder.load_progress().halted is not None
    key = None if plaintext or stopped else folder.shared_key
    if key is not None:
        check_key(key, folder.terms)
    if plaintext:
        log.warning("PLAINTEXT: updates of task %s are not encrypted", task_id)
    task = TaskContext(
        task_id=task_id,
        domain=deployment_of(chain).domain,
        terms=folder.terms,
        roster=folder.roster,
        key_id=ZERO_DIGEST if key is None else key.key_id,
    )
    return NodeSession(
        task=task,
        folder=folder,
        signer=home.signer,
        sealing_key=home.sealing_key,
        key=key,
        pinned=tuple(home.peers()),
        chain=open_reader(chain),
        policy=home.settings.node,
        app_bundle=_app_bundle(),
        run_config=run_config,
    )


def _app_bundle() -> str:
    return app_bundle_digest(running_app_folder())


def _refusal(msg: Message, reason: str) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason[:1000]), reply_to=msg)


class _AppFailedError(Exception):
    """The app behind the mod raised, or answered with an error."""
