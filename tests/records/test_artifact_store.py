"""The artifact store: bytes under their digest, checked when they are read."""

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import RecordError
from twopm_flower.records.artifacts import ArtifactStore
from twopm_flower.records.digest import tagged_digest


@given(st.binary(max_size=200))
def test_what_is_put_is_what_is_got(data):
    store = ArtifactStore("memory://artifacts")
    digest = store.put(data)
    assert digest == tagged_digest("artifact/v1", data)
    assert store.get(digest) == data


def test_artifacts_survive_the_process(tmp_path):
    digest = ArtifactStore(str(tmp_path)).put(b"aggregate")
    assert ArtifactStore(str(tmp_path)).get(digest) == b"aggregate"


def test_putting_the_same_bytes_twice_stores_them_once(tmp_path):
    store = ArtifactStore(str(tmp_path))
    assert store.put(b"aggregate") == store.put(b"aggregate")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_an_altered_artifact_is_noticed(tmp_path):
    store = ArtifactStore(str(tmp_path))
    digest = store.put(b"aggregate")
    stored = next(path for path in tmp_path.rglob("*") if path.is_file())
    stored.write_bytes(b"aggregatE")
    with pytest.raises(RecordError, match="altered"):
        store.get(digest)


def test_a_missing_artifact_is_named(tmp_path):
    digest = "0x" + "ab" * 32
    with pytest.raises(RecordError, match=digest):
        ArtifactStore(str(tmp_path)).get(digest)


@pytest.mark.parametrize("digest", ["", "0x", "0x../../../../etc/passwd", "0x" + "AB" * 32])
def test_what_is_no_digest_reaches_no_file(tmp_path, digest):
    store = ArtifactStore(str(tmp_path))
    (tmp_path / "outside").write_bytes(b"secret")
    with pytest.raises(RecordError):
        store.get(digest)


def test_a_crash_while_writing_leaves_no_half_artifact(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path))

    def crash(*_):
        raise OSError("power failure")

    monkeypatch.setattr(LocalFileSystem, "mv", crash)
    with pytest.raises(OSError, match="power failure"):
        store.put(b"aggregate")
    monkeypatch.undo()
    digest = tagged_digest("artifact/v1", b"aggregate")
    with pytest.raises(RecordError, match="not in the store"):
        store.get(digest)
    assert store.put(b"aggregate") == digest
    assert store.get(digest) == b"aggregate"
