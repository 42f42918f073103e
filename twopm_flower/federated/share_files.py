"""What a node keeps of shared-out keys until they are opened: reader keys, shares, openings.

All of it stands in the task's folder with mode 0600, and is deleted as soon as it was used.
"""

from pathlib import Path

from twopm_flower.errors import ProtocolViolation
from twopm_flower.federated.exchange import KeyOpening
from twopm_flower.federated.home import sync_folder, write_atomically
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.privacy.share_codec import pack_share, unpack_share
from twopm_flower.privacy.sharing import Share
from twopm_flower.records.statements import OpeningStatement, signed_type


class ShareFiles:
    """The files of one task.

    Parameters
    ----------
    path : Path
        The task's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def reader_key(self, round_: int, attempt: int) -> SealingKey | None:
        """Return the key that shares of an attempt are sealed to; None where none was made."""
        file = self.path / f"reader-{round_}-{attempt}.key"
        return SealingKey.load(file) if file.exists() else None

    def make_reader_key(self, round_: int, attempt: int) -> SealingKey:
        """Return the key that shares of an attempt are to be sealed to, a fresh one at first."""
        found = self.reader_key(round_, attempt)
        if found is not None:
            return found
        key = SealingKey.create()
        key.save(self.path / f"reader-{round_}-{attempt}.key")
        return key

    def save_own_share(self, round_: int, attempt: int, share: Share) -> None:
        """Store this node's share of its own key."""
        write_atomically(self.path / f"share-{round_}-{attempt}.bin", pack_share(share), mode=0o600)

    def load_own_share(self, round_: int, attempt: int) -> Share:
        """Return this node's share of its own key.

        Raises
        ------
        ProtocolViolation
            It dealt none for that attempt, or has opened and deleted it.
        """
        file = self.path / f"share-{round_}-{attempt}.bin"
        if not file.exists():
            raise ProtocolViolation(
                f"this node dealt no key in round {round_}, attempt {attempt}, or opened already"
            )
        return unpack_share(file.read_bytes())

    def save_opening(self, opening: KeyOpening) -> None:
        """Store what is about to be opened, to show the same again if asked."""
        statement = opening.statement.statement
        write_atomically(
            self.path / f"opening-{statement.round}-{statement.attempt}.bin",
            opening.statement.to_bytes() + b"\n" + opening.sealed,
            mode=0o600,
        )

    def load_opening(self, round_: int, attempt: int) -> KeyOpening | None:
        """Return what was opened in an attempt; None before."""
        file = self.path / f"opening-{round_}-{attempt}.bin"
        if not file.exists():
            return None
        statement, _, sealed = file.read_bytes().partition(b"\n")
        return KeyOpening(signed_type(OpeningStatement).from_bytes(statement), sealed)

    def forget_shares(self, round_: int, attempt: int | None = None) -> None:
        """Delete what could open a share again: of one attempt, or of all rounds up to one."""
        for file in (*self.path.glob("reader-*-*.key"), *self.path.glob("share-*-*.bin")):
            _, of_round, of_attempt = file.stem.split("-")
            this = (int(of_round), int(of_attempt)) == (round_, attempt)
            if this or (attempt is None and int(of_round) <= round_):
                file.unlink()
        sync_folder(self.path)

    def forget_openings(self, round_: int) -> None:
        """Delete what was opened in rounds up to one: nobody asks for it any more."""
        for file in self.path.glob("opening-*-*.bin"):
            if int(file.stem.split("-")[1]) <= round_:
                file.unlink()
