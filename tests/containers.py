"""Kafka and PostgreSQL in containers, for runs of the tests with METALLM_TEST_STACK=containers.

The images and the broker's settings are those of docker-compose.yml, so that what the tests run
on is what users of that file get. Needs a container engine and the extra `containers`.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from metallm_stream.embedded.ports import free_port
from metallm_stream.errors import ConfigurationError

VARIABLE = "METALLM_TEST_STACK"
COMPOSE = Path(__file__).parents[1] / "docker-compose.yml"
READY_WITHIN_S = 120.0
KAFKA_PORT = 9094
POSTGRES_PORT = 5432


@contextmanager
def containers() -> Iterator[tuple[str, str]]:
    """Kafka's address and PostgreSQL's URL (of a superuser), until the end of the block.

    Raises `ConfigurationError` where there is no container engine.
    """
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    with ExitStack() as opened:
        yield _kafka(services["kafka"], opened), _postgres(services["postgres"], opened)


def kafka_environment(service: dict[str, Any], host: str, port: int) -> dict[str, str]:
    """The composed broker's settings, with the address at which the tests reach it."""
    settings: dict[str, str] = service["environment"]
    advertised = settings["KAFKA_ADVERTISED_LISTENERS"]
    reached = re.sub(r"HOST://[^,]+", f"HOST://{host}:{port}", advertised)
    # Inside there is nobody else: the broker finds itself without the name of a compose network.
    reached = reached.replace("PLAINTEXT://kafka:", "PLAINTEXT://localhost:")
    return settings | {"KAFKA_ADVERTISED_LISTENERS": reached}


def _kafka(service: dict[str, Any], opened: ExitStack) -> str:
    container = _container(service["image"])
    host, port = container.get_docker_client().host(), free_port()
    container.with_bind_ports(KAFKA_PORT, port)
    container.with_envs(**kafka_environment(service, host, port))
    opened.enter_context(container)
    address = f"{host}:{port}"

    def answers() -> bool:
        return bool(AdminClient({"bootstrap.servers": address}).list_topics(timeout=2).brokers)

    _wait("Kafka", answers)
    return address


def _postgres(service: dict[str, Any], opened: ExitStack) -> str:
    password = secrets.token_hex(16)
    container = _container(service["image"]).with_exposed_ports(POSTGRES_PORT)
    container.with_envs(**(service["environment"] | {"POSTGRES_PASSWORD": password}))
    opened.enter_context(container)
    user, database = (service["environment"][name] for name in ("POSTGRES_USER", "POSTGRES_DB"))
    port = container.get_exposed_port(POSTGRES_PORT)
    address = f"{user}:{password}@{container.get_container_host_ip()}:{port}/{database}"

    def answers() -> bool:
        with psycopg.connect(f"postgresql://{address}", connect_timeout=2):
            return True

    _wait("PostgreSQL", answers)
    return f"postgresql+psycopg://{address}"


def _container(image: str) -> Any:
    from docker.errors import DockerException  # noqa: PLC0415 - an extra, needed here alone
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415

    try:
        return DockerContainer(image)
    except DockerException as exc:
        raise ConfigurationError(
            f"{VARIABLE}=containers needs a container engine, which does not answer ({exc}): start "
            "it, or leave the variable out to test on embedded servers"
        ) from exc


def _wait(name: str, answers: Callable[[], bool]) -> None:
    deadline, pause, said = time.monotonic() + READY_WITHIN_S, threading.Event(), ""
    while time.monotonic() < deadline:
        try:
            if answers():
                return
        except (KafkaException, psycopg.OperationalError) as exc:
            said = str(exc)
        pause.wait(0.2)
    raise ConfigurationError(f"{name} did not answer within {READY_WITHIN_S:g} s: {said}")
