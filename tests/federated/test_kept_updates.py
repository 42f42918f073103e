from pathlib import Path

from twopm_flower.federated.exchange import SealedShare
from twopm_flower.federated.home import KeptUpdate, TaskFolder
from twopm_flower.records.statements import Domain, UpdateStatement, sign
from twopm_flower.signer.keystore import LocalSigner

SIGNER = LocalSigner(b"\x11" * 32)
DOMAIN = Domain(chain_id=5, verifying_contract="0x" + "00" * 20)
DIGEST = "0x" + "ab" * 32


def test_an_update_that_is_sent_again_has_its_shares_in_the_order_in_which_they_were_dealt(
    tmp_path: Path,
) -> None:
    digests = {
        name: DIGEST for name in UpdateStatement.TYPES if name not in ("round", "attempt", "node")
    }
    statement = UpdateStatement(round=1, attempt=1, node=SIGNER.address, **digests)
    # Sorted by their letters' case, the last would come before the first.
    dealt = tuple(
        SealedShare(f"0x{letter * 40}", letter.encode()) for letter in ("a", "B", "c", "D")
    )
    update = KeptUpdate(b"frame", sign(statement, SIGNER, DOMAIN), dealt)
    folder = TaskFolder(tmp_path)
    folder.save_update(1, 1, update)
    assert folder.load_update(1, 1) == update
