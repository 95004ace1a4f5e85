"""A jar is used only when it is the pinned one; what went wrong is told with the way out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from jgo.maven import MavenContext

from metallm_stream.embedded import downloads
from metallm_stream.embedded.downloads import KAFKA_VERSION, _fetch, _Jar, _pinned
from metallm_stream.errors import ConfigurationError

GOOD = b"the pinned jar"
DIGEST = hashlib.sha256(GOOD).hexdigest()


class Registry(ThreadingHTTPServer):
    """Serves each of `bodies` once, in their order, the last one for ever; `None` is a 404."""

    def __init__(self, bodies: list[bytes | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.bodies = bodies
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        is_jar = self.path.endswith(".jar")
        body = self._next() if is_jar else None  # no checksum files
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def _next(self) -> bytes | None:
        self.server.asked.append(self.path)
        bodies = self.server.bodies
        return bodies.pop(0) if len(bodies) > 1 else bodies[0]

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A Maven registry that serves the pinned jar."""
    with Registry([GOOD]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(registry: Registry, cache: Path) -> Path:
    """Fetch the jar from the registry."""
    context = MavenContext(
        repo_cache=cache, local_repos=[], remote_repos={"local": registry.url}, timeout=5
    )
    return _fetch(_Jar("org.example", "thing", "1.2", DIGEST), context)


def test_the_pinned_jar_is_taken(registry: Registry, tmp_path: Path) -> None:
    """One request at the coordinate's place."""
    path = fetch(registry, tmp_path)
    assert path.name == "thing-1.2.jar"
    assert path.read_bytes() == GOOD
    assert registry.asked == ["/org/example/thing/1.2/thing-1.2.jar"]


def test_a_damaged_download_is_tried_again(registry: Registry, tmp_path: Path) -> None:
    """A jar with another digest, or none at all, is asked for up to three times."""
    registry.bodies = [GOOD[:5], None, GOOD]
    assert fetch(registry, tmp_path).read_bytes() == GOOD
    assert len(registry.asked) == 3


def test_another_jar_is_refused(registry: Registry, tmp_path: Path) -> None:
    """A registry that has something else is not believed, and the error says what to do."""
    registry.bodies = [b"something else"]
    with pytest.raises(ConfigurationError, match=r"thing-1\.2\.jar.*SHA-256.*mirror") as caught:
        fetch(registry, tmp_path)
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(caught.value)


def test_a_missing_jar_is_told(registry: Registry, tmp_path: Path) -> None:
    """A registry without the jar ends in the same kind of error."""
    registry.bodies = [None]
    with pytest.raises(ConfigurationError, match=r"thing-1\.2\.jar could not be fetched"):
        fetch(registry, tmp_path)


def test_every_jar_is_pinned() -> None:
    """46 jars, each once, each with version and digest; Kafka's own are of one version."""
    jars = _pinned()
    assert len({jar.file_name for jar in jars}) == len(jars) == 46
    assert all(len(jar.sha256) == 64 and jar.version for jar in jars)
    own = {jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert own == {KAFKA_VERSION}


def test_nothing_is_fetched_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every jar is in the cache, no step is told and no registry is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jars = downloads.kafka_home() / "jars"
    jars.mkdir(parents=True)
    for jar in _pinned():
        (jars / jar.file_name).touch()
    steps: list[object] = []
    assert len(downloads.kafka_jars(steps.append)) == 46
    assert not steps
