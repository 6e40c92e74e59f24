"""Downloads are whole or resumable, over a real server."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worldmodel import fetch as fetching
from worldmodel import models
from worldmodel.fetch import FetchError, Published, digest, fetch

CONTENT = bytes(range(256)) * 9000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT as weights.pt, in ranges; breaks off after `cut` bytes when told to."""

    cut: int | None = None
    ranges = True
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Server.asked.append(self.headers.get("Range"))
        if not self.path.startswith("/weights.pt"):
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and Server.ranges else 0
        if first >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client that has seen enough
            self.wfile.write(CONTENT[first : Server.cut])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Server.cut, Server.ranges, Server.asked = None, True, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/weights.pt"
    server.shutdown()
    server.server_close()


def test_a_file_arrives_whole_and_is_not_fetched_twice(address: str, tmp_path: Path) -> None:
    place = fetch(address, tmp_path / "new", size=len(CONTENT))
    assert place.read_bytes() == CONTENT
    fetch(address, tmp_path / "new", size=len(CONTENT))
    assert len(Server.asked) == 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["weights.pt"]
    assert len(digest(place)) == 64


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_line_is_resumed(address: str, tmp_path: Path, ranges: bool) -> None:
    Server.cut = 1_500_000
    with pytest.raises(FetchError, match="goes on where it stopped"):
        fetch(address, tmp_path)
    assert not (tmp_path / "weights.pt").exists()
    Server.cut, Server.ranges = None, ranges
    assert fetch(address, tmp_path).read_bytes() == CONTENT
    assert Server.asked[-1] == "bytes=1500000-"


def test_more_than_there_is_begins_anew(address: str, tmp_path: Path) -> None:
    (tmp_path / ".weights.pt.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(address, tmp_path).read_bytes() == CONTENT


def test_another_size_than_published_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="another file now"):
        fetch(address, tmp_path, size=17)


def test_what_is_not_there_is_said(address: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="404"):
        fetch(address.replace("weights", "nothing"), tmp_path)
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/weights.pt", tmp_path)


def test_a_licence_is_said_and_accepted(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = Published(address, "CC-BY-NC-4.0", False, "somebody's weights", size=len(CONTENT))
    monkeypatch.setitem(fetching.PUBLISHED, "theirs", weights)
    with pytest.raises(ValueError, match="say accept=true"):
        models.pull_model("theirs", tmp_path, accepted=False)
    assert not Server.asked
    models.pull_model("theirs", tmp_path, accepted=True)
    said = capsys.readouterr().out
    assert "Licence: CC-BY-NC-4.0" in said
    assert "action=convert source=" in said
    with pytest.raises(ValueError, match="did you mean vjepa2-ac"):
        models.pull_model("vjepa2ac", tmp_path, accepted=False)
