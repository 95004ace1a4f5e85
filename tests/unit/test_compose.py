"""docker-compose.yml and Dockerfile name only what there is; no container engine is needed here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml
from sqlalchemy import make_url

from metallm_stream.cli.main import cli
from metallm_stream.embedded.downloads import KAFKA_VERSION
from metallm_stream.embedded.kafka import Broker
from metallm_stream.postgres import database_url
from metallm_stream.serve.http import pages
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.settings import Settings, load
from tests.containers import COMPOSE, kafka_environment

REPOSITORY = Path(__file__).parents[2]
OURS = ("setup", "router", "worker", "learner")
GIVEN = {"OPENAI_API_KEY": "key", "POSTGRES_PASSWORD": "abc123", "LEARNER_PASSWORD": "def456"}
PLACEHOLDER = re.compile(r"\$\{(\w+)(?::[?-]([^}]*))?\}")
# Where a broker is and how it is reached differs between one process and a container.
OWN_KAFKA_SETTINGS = {
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "controller.quorum.voters",
    "log.dirs",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return parsed


def filled_in(environment: dict[str, str]) -> dict[str, str]:
    """The environment with the user's variables put in."""
    return {
        name: PLACEHOLDER.sub(lambda found: GIVEN[found[1]], value)
        for name, value in environment.items()
    }


def instructions(name: str) -> list[list[str]]:
    """The words of the Dockerfile's instructions of one kind."""
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]


def test_it_has_the_servers_and_the_three_services(compose: dict[str, Any]) -> None:
    """And nothing else."""
    assert compose["services"].keys() == {"kafka", "postgres", "learner-user", *OURS}


def test_services_wait_for_services_that_there_are(compose: dict[str, Any]) -> None:
    """Each that is waited for as healthy has a health check."""
    for service in compose["services"].values():
        for other, how in service.get("depends_on", {}).items():
            awaited = compose["services"][other]
            if how["condition"] == "service_healthy":
                assert awaited["healthcheck"]["test"][0] == "CMD"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert awaited["restart"] == "no"


def test_volumes_and_ports_are_declared_and_local(compose: dict[str, Any]) -> None:
    """Data outlives the containers, and nothing listens to the outside."""
    mounted = {
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert mounted == compose["volumes"].keys()
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["router", "worker", "learner"])
def test_a_service_runs_an_entry_point_that_is_in_the_image(
    name: str, compose: dict[str, Any]
) -> None:
    """And the entry point takes those arguments."""
    program, script, *arguments = compose["services"][name]["command"]
    assert program == "python"
    assert script == f"services/{name}.py"
    assert (REPOSITORY / script).is_file()
    shown = subprocess.run(
        [sys.executable, script, *arguments, "--help"] if arguments else [sys.executable, "-V"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown.returncode == 0
    assert not arguments or arguments[0] in shown.stdout


def test_the_setup_runs_commands_that_there_are(compose: dict[str, Any]) -> None:
    """Each part of its line is a command of ours."""
    line = compose["services"]["setup"]["command"][-1]
    for part in line.split("&&"):
        program, *names = shlex.split(part)
        assert program == "metallm"
        command: click.Command = cli
        for name in names:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), name)
            assert found is not None, name
            command = found


@pytest.mark.parametrize("name", OURS)
def test_a_services_environment_is_one_that_the_settings_take(
    name: str, compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses are those of the composed servers, and no variable is without effect."""
    for known in [k for k in os.environ if k.startswith(("METALLM_", "KAFKA_", "DATABASE_"))]:
        monkeypatch.delenv(known)
    environment = filled_in(compose["services"][name]["environment"])
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load()
    host, port = settings.bootstrap().split(":")
    assert (
        f"PLAINTEXT://{host}:{port}"
        in (compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"])
    )
    if settings.database_url is not None:
        url = make_url(database_url(settings.database_url))
        given = filled_in(compose["services"]["postgres"]["environment"])
        assert (url.host, url.port, url.database) == ("postgres", 5432, given["POSTGRES_DB"])
        owner = (given["POSTGRES_USER"], given["POSTGRES_PASSWORD"])
        user = ("learner", GIVEN["LEARNER_PASSWORD"])
        assert (url.username, url.password) == (user if name == "learner" else owner)
    known = {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "METALLM_SLOT", "METALLM_HTTP__PORT"}
    assert environment.keys() - known == ({"OPENAI_API_KEY"} if name == "worker" else set())


@pytest.mark.parametrize("name", ["router", "worker", "learner"])
def test_a_services_health_is_asked_for_where_it_is_told(
    name: str, compose: dict[str, Any]
) -> None:
    """Its own port, a path that there is, and a program that the image has."""
    service = compose["services"][name]
    program, option, code = service["healthcheck"]["test"][1:]
    assert (service["healthcheck"]["test"][0], program, option) == ("CMD", "python", "-c")
    url = urlsplit(re.findall(r"http://[^']+", code)[0])
    assert (url.hostname, str(url.port)) == (
        Settings().http.host,
        service["environment"]["METALLM_HTTP__PORT"],
    )
    assert url.path in pages(LoopMetrics(name, "0"), threading.Event(), stuck_after_s=9)
    compile(code, "healthcheck", "exec")


def test_only_the_learner_and_the_setup_know_the_database(compose: dict[str, Any]) -> None:
    """The router needs none, and a worker that answers calls shall have none."""
    having = {name for name in OURS if "DATABASE_URL" in compose["services"][name]["environment"]}
    assert having == {"setup", "learner"}


def test_what_the_user_must_give_is_asked_for_by_name() -> None:
    """A variable that is missing stops compose with a sentence, not a service with a traceback."""
    asked = dict(PLACEHOLDER.findall(COMPOSE.read_text()))
    assert asked.keys() == GIVEN.keys()
    text = COMPOSE.read_text()
    for name in GIVEN:
        assert f"${{{name}:?" in text
        assert f"#   {name} " in text


def test_the_broker_is_set_up_like_the_embedded_one(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    """The guarantees were measured with these settings."""
    broker = Broker(tmp_path, 9092, (9093,))
    broker.write_properties()
    embedded = dict(line.split("=", 1) for line in broker.properties.read_text().splitlines())
    service = compose["services"]["kafka"]
    composed = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in service["environment"].items()
        if name.startswith("KAFKA_")
    }
    for name in (composed.keys() & embedded.keys()) - OWN_KAFKA_SETTINGS:
        assert composed[name] == embedded[name], name
    assert embedded.keys() - composed.keys() == {
        "broker.heartbeat.interval.ms",
        "broker.session.timeout.ms",
        "controlled.shutdown.enable",
        "default.replication.factor",
        "log.cleaner.dedupe.buffer.size",
        "min.insync.replicas",
        "offsets.topic.num.partitions",
        "share.coordinator.state.topic.num.partitions",
        "transaction.state.log.num.partitions",
    }
    assert service["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_listeners_are_advertised_and_mapped_by_the_same_names(compose: dict[str, Any]) -> None:
    """Inside, outside and controller."""
    environment = compose["services"]["kafka"]["environment"]
    listening = {part.split(":")[0] for part in environment["KAFKA_LISTENERS"].split(",")}
    mapped = environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    assert {part.split(":")[0] for part in mapped} == listening
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert {part.split(":")[0] for part in advertised} == listening - {"CONTROLLER"}


def test_the_tests_containers_reach_the_same_broker_from_outside(compose: dict[str, Any]) -> None:
    """METALLM_TEST_STACK=containers changes the addresses alone."""
    service = compose["services"]["kafka"]
    changed = kafka_environment(service, "127.0.0.1", 15_555)
    assert changed["KAFKA_ADVERTISED_LISTENERS"] == (
        "PLAINTEXT://localhost:9092,HOST://127.0.0.1:15555"
    )
    same = service["environment"].items() - changed.items()
    assert {name for name, _ in same} == {"KAFKA_ADVERTISED_LISTENERS"}


def test_without_an_engine_the_containers_say_so() -> None:
    """METALLM_TEST_STACK=containers fails; it does not fall back to something else."""
    code = "from tests.containers import containers\nwith containers(): pass"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"PATH": "", "DOCKER_HOST": "unix:///nowhere/docker.sock"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "needs a container engine" in ended.stderr


def test_the_image_is_made_of_files_that_there_are() -> None:
    """Everything that the Dockerfile copies exists and is let through to the engine."""
    let_through = {
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {source for *sources, _ in instructions("COPY") for source in sources}
    assert copied == let_through
    assert all((REPOSITORY / source).exists() for source in copied)


def test_the_image_has_all_that_the_package_is_built_from() -> None:
    """Readme, licence, and what is shipped inside the wheel."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *wheel["packages"], *wheel["force-include"]}
    copied = {source for *sources, _ in instructions("COPY") for source in sources}
    assert needed | {"pyproject.toml", "LICENSE"} == copied


def test_the_image_does_not_run_as_root_and_is_new_enough() -> None:
    """Python as the package wants it; a user of its own."""
    ((base,),) = instructions("FROM")
    version = re.fullmatch(r"python:3\.(\d+)-slim", base)
    assert version is not None
    assert int(version[1]) >= 11
    ((user,),) = instructions("USER")
    assert user != "root"
