import hashlib
import io
import logging
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from student_files import real_folder, synthetic_csv

from twopm_flower.datasets import load_students
from twopm_flower.datasets.download import MAX_BYTES, download
from twopm_flower.datasets.schema import PublishedFile
from twopm_flower.errors import DataError, RealDataMissingError

NOBODY = "http://127.0.0.1:9/student+performance.zip"
"""The discard port, where nobody listens."""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("TWOPM_DATA_DIR", raising=False)
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def archive(csv: bytes, name: str = "student-mat.csv") -> bytes:
    """Return CSV bytes as UCI packs them: a zip inside a zip."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, csv)
    with zipfile.ZipFile(outer, "w") as packed:
        packed.writestr("student.zip", inner.getvalue())
    return outer.getvalue()


def published(csv: bytes) -> PublishedFile:
    return PublishedFile("student-mat.csv", 6, hashlib.sha256(csv).hexdigest())


@contextmanager
def server(body: bytes, status: int = 200, pause_s: float = 0.0) -> Iterator[str]:
    """Serve `body` for every path, one kilobyte every `pause_s` seconds; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            step = 1024 if pause_s else len(body) or 1
            for start in range(0, len(body), step):
                try:
                    self.wfile.write(body[start : start + step])
                except OSError:
                    return
                time.sleep(pause_s)

        def log_message(self, *args):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}/archive.zip"
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


@pytest.mark.parametrize(("subject", "rows"), [("mat", 395), ("por", 649)])
def test_the_real_data_loads_from_a_folder_given_in_any_of_the_four_ways(
    subject, rows, monkeypatch, tmp_path
):
    folder = real_folder()
    given = [
        load_students(subject, folder),
        load_students(subject, str(folder / f"student-{subject}.csv")),
        load_students(subject, extra_dirs=[tmp_path, folder]),
    ]
    monkeypatch.setenv("TWOPM_DATA_DIR", str(folder))
    given.append(load_students(subject))
    for table in given:
        assert table.label == f"UCI student-{subject} ({rows} rows)"
        assert table.source == "file"
        assert table.is_published
        assert not table.is_synthetic
        assert table.path == folder / f"student-{subject}.csv"


def test_the_cache_is_found_in_the_home_given_or_set(tmp_path):
    cache = tmp_path / "home" / "data"
    cache.mkdir(parents=True)
    (cache / "student-mat.csv").write_bytes((real_folder() / "student-mat.csv").read_bytes())
    assert load_students("mat").source == "cache"
    assert load_students("mat", home=tmp_path / "home").source == "cache"


def test_a_file_of_ones_own_is_read_from_its_path_and_called_what_it_is(tmp_path):
    path = tmp_path / "my-school.csv"
    path.write_bytes(synthetic_csv(6))
    table = load_students("mat", path)
    assert table.label == "my-school.csv (6 rows), not the published file"
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not table.is_synthetic


@pytest.mark.parametrize("place", ["variable", "extra", "cache"])
def test_a_changed_file_that_was_merely_found_is_refused(place, monkeypatch, tmp_path):
    folder = tmp_path / "home" / "data" if place == "cache" else tmp_path / "found"
    folder.mkdir(parents=True)
    (folder / "student-mat.csv").write_bytes(synthetic_csv())
    if place == "variable":
        monkeypatch.setenv("TWOPM_DATA_DIR", str(folder))
    with pytest.raises(DataError, match="is not the published file") as caught:
        load_students("mat", extra_dirs=[folder] if place == "extra" else [])
    assert str(folder / "student-mat.csv") in caught.value.message


def test_a_path_without_a_file_is_an_error_and_not_a_reason_to_look_elsewhere(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*student-mat\.csv"):
        load_students("mat", tmp_path)
    with pytest.raises(DataError, match=r"There is no file .*absent\.csv"):
        load_students("mat", tmp_path / "absent.csv")


def test_errors_inside_a_file_name_the_path(tmp_path):
    path = tmp_path / "broken.csv"
    path.write_bytes(synthetic_csv().replace(b";", b","))
    with pytest.raises(DataError, match=r"broken\.csv, line 1"):
        load_students("mat", path)


def test_without_any_file_synthetic_students_are_announced_loudly(caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        table = load_students("mat", extra_dirs=[tmp_path / "looked"], url=NOBODY, progress=False)
    assert table.label == "SYNTHETIC student-mat (395 rows)"
    assert table.is_synthetic
    assert table.path is None
    assert not table.is_published
    (warning,) = [record.getMessage() for record in caplog.records]
    for part in (
        "SYNTHETIC",
        str(tmp_path / "looked"),
        NOBODY,
        str(tmp_path / "home" / "data"),
        "twopm data add student-mat.csv",
    ):
        assert part in warning


def test_insisting_on_real_data_raises_instead(tmp_path):
    with pytest.raises(RealDataMissingError, match="Real data is required") as caught:
        load_students("por", require_real=True, allow_download=False)
    assert "twopm data add student-por.csv" in caught.value.hint


def test_the_published_archive_is_downloaded_once_into_the_cache():
    csv = (real_folder() / "student-mat.csv").read_bytes()
    with server(archive(csv)) as url:
        assert load_students("mat", url=url, progress=False).source == "download"
    table = load_students("mat", url=url, require_real=True)
    assert (table.source, table.label) == ("cache", "UCI student-mat (395 rows)")


def test_a_download_shows_its_progress_on_standard_error(tmp_path, capsys):
    csv = synthetic_csv()
    with server(archive(csv)) as url:
        path = download(published(csv), tmp_path / "new" / "folder", url=url)
    assert path.read_bytes() == csv
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Downloading the student data" in printed.err
    assert [entry.name for entry in path.parent.iterdir()] == ["student-mat.csv"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (archive(synthetic_csv(5)), 200, "has sha256"),
        (archive(synthetic_csv(), "other.csv"), 200, "not the archive that was expected"),
        (b"<html>please log in</html>", 200, "not the archive that was expected"),
        (b"", 200, "not the archive that was expected"),
        (b"gone", 404, "404"),
        (bytes(MAX_BYTES + 1), 200, "more than"),
    ],
    ids=["other bytes", "other member", "login page", "nothing", "not found", "huge"],
)
def test_a_bad_download_is_refused_and_leaves_nothing(tmp_path, body, status, says):
    with server(body, status) as url, pytest.raises(DataError, match=says) as caught:
        download(published(synthetic_csv()), tmp_path, url=url, progress=False)
    assert url in str(caught.value)
    assert str(tmp_path) in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path):
    bomb = archive(bytes(MAX_BYTES + 1))
    assert len(bomb) < 100_000
    with server(bomb) as url, pytest.raises(DataError, match="larger than"):
        download(published(b""), tmp_path, url=url, progress=False)


def test_a_download_that_drips_is_given_up_after_the_total_time(tmp_path):
    with server(bytes(200 * 1024), pause_s=0.05) as url:
        start = time.monotonic()
        with pytest.raises(DataError, match=r"longer than 0\.3 s"):
            download(published(b""), tmp_path, url=url, total_timeout_s=0.3, progress=False)
        assert time.monotonic() - start < 5


def test_a_server_that_says_nothing_is_given_up(tmp_path):
    with server(bytes(2048), pause_s=1.5) as url, pytest.raises(DataError, match="Cannot download"):
        download(published(b""), tmp_path, url=url, total_timeout_s=0.3, progress=False)


def test_a_cache_that_cannot_be_written_is_reported(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    csv = synthetic_csv()
    with server(archive(csv)) as url, pytest.raises(DataError, match="Cannot write"):
        download(published(csv), blocked, url=url, progress=False)


def test_the_project_holds_no_data_file():
    root = Path(__file__).resolve().parents[2]
    assert not list((root / "twopm_flower").rglob("*.csv"))
