"""A Kafka user with few rights is told which one is missing, and of everything else as usual."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from pydantic import SecretStr

from metallm_stream.cli.main import cli
from metallm_stream.embedded import EmbeddedStack
from metallm_stream.embedded.ports import HOST, free_port
from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Follower,
    NotWrittenError,
    Record,
    TopicNames,
    Transactions,
    begin_write,
    check,
    create,
    require_rights,
    write,
)
from tests.pipeline import ENCODER
from tests.processes import eventually, kill_and_wait

NAMES = TopicNames("few.")
DEAD = NAMES.dead_letters(NAMES.queries)
USER = "User:little"
SECURITY = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN",
    "sasl.username": "little",
    "sasl.password": "little-secret",
}
ADDED = """\
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},GUARDED://{host}:{guarded}
advertised.listeners=PLAINTEXT://{host}:{port},GUARDED://{host}:{guarded}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT
listener.name.guarded.sasl.enabled.mechanisms=PLAIN
listener.name.guarded.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_little="little-secret";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class Guarded:
    """A broker where `little` may do what it was granted, and whoever has no name everything."""

    def __init__(self, stack: EmbeddedStack) -> None:
        self.address = f"{HOST}:{_add_listener(stack)}"
        properties = {name: SecretStr(value) for name, value in SECURITY.items()}
        self.connection = Connection(self.address, properties)
        self.admin = Connection(stack.bootstrap_servers).admin()
        create(self.admin, NAMES, (), partitions=1)

    def grant(
        self,
        right: AclOperation,
        kind: ResourceType = ResourceType.TOPIC,
        prefix: str = NAMES.prefix,
    ) -> None:
        """Give a right on all topics of ours, or other things."""
        acl = AclBinding(
            *(kind, prefix, ResourcePatternType.PREFIXED, USER, "*", right), AclPermissionType.ALLOW
        )
        for granted in self.admin.create_acls([acl]).values():
            granted.result(15)

    def revoke(self, kind: ResourceType = ResourceType.ANY) -> None:
        """Take all rights on some kind of thing away."""
        every = AclBindingFilter(
            *(kind, None, ResourcePatternType.ANY, USER, None, AclOperation.ANY),
            AclPermissionType.ANY,
        )
        for revoked in self.admin.delete_acls([every]).values():
            revoked.result(15)

    def refusal(self) -> str:
        """What is wrong with the topics as `little` sees them; nothing, if nothing is."""
        try:
            check(self.connection.admin(), NAMES, ())
        except ConfigurationError as exc:
            return "" if isinstance(exc, Unreachable) else str(exc)
        return ""

    def doctor(self, database_url: str, **changed: str) -> str:
        """What `metallm doctor` says to `little`, with these variables changed."""
        environment: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith(("METALLM_", "KAFKA_"))
        }
        environment |= {
            "KAFKA_BOOTSTRAP_SERVERS": self.address,
            "DATABASE_URL": database_url,
            "METALLM_TOPICS__PREFIX": NAMES.prefix,
            "METALLM_ENCODER": ENCODER,
        }
        variables = {f"KAFKA_{name.upper().replace('.', '_')}": SECURITY[name] for name in SECURITY}
        result = CliRunner(env=environment | variables | changed).invoke(cli, ["doctor"])
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        return result.stdout


def _add_listener(stack: EmbeddedStack) -> int:
    """Start the broker again with rights, and a port where users say who they are."""
    file = stack.state.path / "kafka" / "server.properties"
    known, guarded = file.read_text(), free_port()
    port = stack.bootstrap_servers.rpartition(":")[2]
    controller = known.partition("CONTROLLER://")[2].partition("\n")[0].rpartition(":")[2]
    added = ADDED.format(host=HOST, port=port, controller=controller, guarded=guarded)
    file.write_text(known + added)  # the later of two lines counts
    kill_and_wait(stack.supervisor.children["kafka"])
    return guarded


@pytest.fixture(scope="module")
def broker(database_url: str) -> Iterator[Guarded]:
    """One for the module."""
    with tempfile.TemporaryDirectory(prefix="metallm-test-") as directory:
        state = Path(directory) / "state"
        with EmbeddedStack(state, database_url=database_url) as stack:
            yield Guarded(stack)


@pytest.fixture
def guarded(broker: Guarded) -> Iterator[Guarded]:
    """`little` begins with no rights."""
    yield broker
    broker.revoke()
    eventually(lambda: "not visible" in broker.refusal())


def test_topics_that_are_hidden_may_be_missing_or_not(guarded: Guarded) -> None:
    """Kafka does not tell the two apart, so neither do we."""
    assert "is missing, or not visible to this user: run `metallm topics" in guarded.refusal()
    with pytest.raises(ConfigurationError, match=r"not visible to this user.*grant Describe"):
        Follower(guarded.connection, [NAMES.policy])


def test_settings_that_are_hidden_are_told_with_the_right_to_grant(guarded: Guarded) -> None:
    """In one line, and with the right all is well."""
    guarded.grant(AclOperation.DESCRIBE)
    eventually(lambda: "DescribeConfigs" in guarded.refusal())
    assert f"the settings of topic '{NAMES.prefix}" in guarded.refusal()
    guarded.grant(AclOperation.DESCRIBE_CONFIGS)
    eventually(lambda: not guarded.refusal())


def test_doctor_leaves_no_check_out_because_another_is_refused(
    guarded: Guarded, database_url: str
) -> None:
    """Brokers' and topics' settings and all groups are refused; then one may be used to read."""
    guarded.grant(AclOperation.READ)
    eventually(lambda: "DescribeConfigs" in guarded.refusal())
    told = guarded.doctor(database_url)
    assert f"ok       kafka: brokers {guarded.address}; version not told: " in told
    assert "problem  topics: the settings of topic " in told
    assert "provider openai lacks " in told
    for refused in ("models", "services: router", "services: learner", "policy"):
        assert f"problem  {refused}: " in told
    assert "problem  schema: the database has no metallm tables" in told
    guarded.grant(AclOperation.READ, ResourceType.GROUP, "metallm-reader")
    eventually(lambda: "warning  models: none" in guarded.doctor(database_url))
    told = guarded.doctor(database_url)
    assert "problem  services: router: " in told
    assert "warning  policy: none yet" in told


def test_doctor_tells_why_brokers_refuse_a_login(guarded: Guarded, database_url: str) -> None:
    """Not only that they do not answer."""
    told = guarded.doctor(database_url, KAFKA_SASL_USERNAME="unknown")
    (kafka,) = (line for line in told.splitlines() if " kafka: " in line)
    assert "SASL authentication error" in kafka


def test_rights_that_are_missing_are_told_before_they_are_used(guarded: Guarded) -> None:
    """The first topic without the right, or the group."""
    router = f"{NAMES.prefix}metallm-router"

    def lacking() -> str:
        try:
            require_rights(
                guarded.connection.admin(), reads=[NAMES.queries], writes=[DEAD], group=router
            )
        except ConfigurationError as exc:
            return str(exc)
        return ""

    guarded.grant(AclOperation.READ)
    said = f"this user may not Write topic '{DEAD}': grant Write on it"
    eventually(lambda: lacking() == said)
    guarded.grant(AclOperation.WRITE, prefix=DEAD)
    eventually(lambda: f"consumer group '{router}'" in lacking())
    guarded.grant(AclOperation.DESCRIBE, ResourceType.GROUP)
    eventually(lambda: lacking().endswith("grant Read on it"))
    guarded.grant(AclOperation.READ, ResourceType.GROUP)
    eventually(lambda: not lacking())


def test_a_right_to_write_that_is_lost_later_is_told_with_its_topic(guarded: Guarded) -> None:
    """Which the client does not tell: it says that the transaction must be aborted."""
    guarded.grant(AclOperation.READ)
    guarded.grant(AclOperation.WRITE, ResourceType.TRANSACTIONAL_ID)
    eventually(lambda: "DescribeConfigs" in guarded.refusal())
    transactions = Transactions(guarded.connection, f"{NAMES.prefix}slot")
    with closing(transactions):
        transactions.start()
        with pytest.raises(ConfigurationError, match=f"may not Write topic '{DEAD}': grant Write"):
            transactions.write([Record(DEAD, None, b"bad")])
    guarded.grant(AclOperation.WRITE, prefix=NAMES.policy)  # or no idempotent producer at all
    with pytest.raises(ConfigurationError, match=rf"refuses: {DEAD}: .*grant .* on the topic"):
        write(guarded.connection.producer(), [Record(DEAD, None, b"bad")])


def test_a_producer_that_may_not_write_at_all_says_so(guarded: Guarded) -> None:
    """The client ends for good then: at the first record, before it, or between two."""
    guarded.grant(AclOperation.READ)
    eventually(lambda: "DescribeConfigs" in guarded.refusal())
    said = "Cluster authorization failed: grant this user IdempotentWrite on the cluster"
    producer, records = guarded.connection.producer(), [Record(DEAD, None, b"bad")] * 3
    with pytest.raises(ConfigurationError, match=said):
        write(producer, records)
    with pytest.raises(NotWrittenError, match="Fatal error"):
        write(producer, records)
    producer = guarded.connection.producer()
    with pytest.raises(ConfigurationError, match=said):
        eventually(lambda: begin_write(producer, records[0]))

    def slowly() -> Iterator[Record]:  # or the queue fills before, and is polled
        while True:
            time.sleep(0.01)
            yield records[0]

    with pytest.raises(ConfigurationError, match=said):
        write(guarded.connection.producer(), slowly())


def test_a_transactional_id_that_is_refused_is_named(guarded: Guarded) -> None:
    """It is no fence, and a restart does not help."""
    with (
        closing(Transactions(guarded.connection, "slot")) as transactions,
        pytest.raises(ConfigurationError, match=r"'slot'.*Describe on the transactional id"),
    ):
        transactions.start()


def test_a_group_that_may_not_be_joined_is_named(guarded: Guarded) -> None:
    """Also where the right is lost while the member works."""
    guarded.grant(AclOperation.READ)
    guarded.grant(AclOperation.WRITE, ResourceType.TRANSACTIONAL_ID)
    eventually(lambda: "DescribeConfigs" in guarded.refusal())
    group = f"{NAMES.prefix}copier"
    copier = partial(ExactlyOnce, guarded.connection, [NAMES.queries], group=group, slot="0")
    with (
        closing(copier()) as loop,
        pytest.raises(ConfigurationError, match=rf"group '{group}': .*grant this user Read on the"),
    ):
        loop.start()

    def may_join() -> bool:
        try:
            require_rights(guarded.connection.admin(), group=group)
        except ConfigurationError:
            return False
        return True

    guarded.grant(AclOperation.READ, ResourceType.GROUP)
    eventually(may_join)
    with closing(copier()) as loop:
        loop.start()
        eventually(lambda: loop.take(1, 0.1) or loop.lags())
        guarded.revoke(ResourceType.GROUP)
        with pytest.raises(ConfigurationError, match=rf"{group}: .*grant this user Read on the"):
            eventually(lambda: loop.take(1, 0.1))
