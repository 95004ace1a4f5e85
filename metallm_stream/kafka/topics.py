"""The topics: their names, how they are made, and whether those that exist will do.

Invariant: a service starts only on topics that can keep its guarantees; existing topics are
never changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from metallm_stream.errors import ConfigurationError, Unreachable, counted
from metallm_stream.kafka.connect import MAX_RECORD_BYTES, Admin

SEGMENT_BYTES, SEGMENT_MS = 4 * MAX_RECORD_BYTES, 300_000
DAY_MS = 24 * 3_600 * 1_000
TIMEOUT_S = 15.0
NEWS_WITHIN_S = 1.0
ASK_AGAIN_S = 3.0
# Who gives tokens may be down for a while; the client does not tell that apart from a refusal.
_NOT_ACQUIRED = "Failed to acquire SASL OAUTHBEARER token"
UNSEEN = "missing, or not visible to this user"  # Kafka hides what we may not Describe


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names of all topics under one prefix."""

    prefix: str = ""

    @property
    def queries(self) -> str:
        """What users ask."""
        return f"{self.prefix}queries"

    @property
    def decisions(self) -> str:
        """What the router chose, and why."""
        return f"{self.prefix}decisions"

    @property
    def results(self) -> str:
        """What users get."""
        return f"{self.prefix}results"

    @property
    def feedback(self) -> str:
        """Labels and scores."""
        return f"{self.prefix}feedback"

    @property
    def cases(self) -> str:
        """Answers drawn for the judge model."""
        return f"{self.prefix}cases"

    @property
    def verdicts(self) -> str:
        """What the judge model said of them."""
        return f"{self.prefix}verdicts"

    @property
    def policy(self) -> str:
        """The learned policy, compacted."""
        return f"{self.prefix}policy"

    @property
    def models(self) -> str:
        """The catalogue of arms, compacted."""
        return f"{self.prefix}models"

    @property
    def health(self) -> str:
        """Which arms the workers find down, compacted."""
        return f"{self.prefix}health"

    @property
    def compacted(self) -> tuple[str, str, str]:
        """The topics of which the newest record of each key counts, in one order."""
        return self.policy, self.models, self.health

    @property
    def joined(self) -> tuple[str, str, str, str]:
        """The topics that the learner joins by `query_id`."""
        return self.decisions, self.results, self.feedback, self.verdicts

    def calls(self, provider: str) -> str:
        """Work for one provider."""
        return f"{self.prefix}calls.{provider}"

    @staticmethod
    def dead_letters(topic: str) -> str:
        """Where records of `topic` go that nobody can read."""
        return f"{topic}.dlq"

    def dead_letter_pattern(self) -> str:
        """A librdkafka subscription for all dead-letter topics under the prefix."""
        escaped = self.prefix.replace(".", "[.]")
        named = "queries|decisions|results|feedback|cases|verdicts"
        return f"^{escaped}({named}|calls[.][a-z0-9_-]+)[.]dlq$"

    def all(self, providers: Iterable[str]) -> list[str]:
        """Every topic for these providers, dead-letter topics included."""
        read = [self.queries, self.decisions, self.results, self.feedback]
        read += [self.calls(provider) for provider in sorted(providers)]
        read += [self.cases, self.verdicts]
        return [*read, *self.compacted, *map(self.dead_letters, read)]


def create(
    admin: Admin,
    names: TopicNames,
    providers: Iterable[str],
    *,
    partitions: int,
    replication_factor: int | None = None,
    min_insync_replicas: int | None = None,
) -> list[str]:
    """Create the topics that are missing; returns their names. Existing ones are left alone.

    Parameters
    ----------
    replication_factor
        ``None``: three, or as many as there are brokers, those included that are down now but
        hold copies of other topics.
    min_insync_replicas
        ``None``: two of three or more copies, else one.

    Raises
    ------
    ConfigurationError
        When no record could ever be written, or Kafka refuses: no topic gets fewer copies because
        a broker is down.
    """
    listed = _listed(admin)
    existing = listed.topics.keys()
    copies = replication_factor or min(3, len(_brokers(listed)))
    in_sync = min_insync_replicas or (2 if copies > 2 else 1)
    if in_sync > copies:
        raise ConfigurationError(
            f"topics.min_insync_replicas={in_sync}, but topics get {copies} copies: nothing could"
            " ever be written; set it lower, or topics.replication_factor higher"
        )
    missing = [
        NewTopic(
            topic,
            num_partitions=1 if topic in names.compacted else partitions,
            replication_factor=copies,
            config={**_config(topic, names), "min.insync.replicas": str(in_sync)},
        )
        for topic in names.all(providers)
        if topic not in existing
    ]
    made = []
    if missing:
        answers = admin.create_topics(missing, operation_timeout=TIMEOUT_S)
        made = [topic for topic, answer in answers.items() if _is_made(topic, answer)]
        if untold := _missing(admin, answers, TIMEOUT_S):
            raise Unreachable(f"topics {untold} were made, but nobody knows them")
    return made


def check(admin: Admin, names: TopicNames, providers: Iterable[str]) -> None:
    """Raises `ConfigurationError` that names the first topic that is missing or will not do."""
    providers = tuple(providers)
    if missing := _missing(admin, names.all(providers), NEWS_WITHIN_S):
        raise ConfigurationError(no_topic(missing[0]))
    listed = _listed(admin)
    found = {name: len(topic.partitions) for name, topic in listed.topics.items()}
    for topic in names.compacted:
        if found[topic] != 1:
            raise ConfigurationError(
                f"topic {topic!r} has {found[topic]} partitions, its order needs exactly 1: "
                "delete it and run `metallm topics create`"
            )
    if found[names.decisions] < found[names.queries]:
        raise ConfigurationError(
            f"topic {names.decisions!r} has {counted(found[names.decisions], 'partition')}, "
            f"fewer than the {found[names.queries]} of {names.queries!r}: add partitions to it"
        )
    _check_settings(admin, names, providers, listed)


def no_topic(topic: str) -> str:
    """What is said of a topic that is not there, as far as we can see."""
    return f"topic {topic!r} is {UNSEEN}: run `metallm topics create`, or grant Describe on it"


def providers_with_topics(admin: Admin, names: TopicNames) -> frozenset[str]:
    """The providers that have a topic for their calls."""
    start = names.calls("")
    return frozenset(
        topic.removeprefix(start)
        for topic in _listed(admin).topics
        if topic.startswith(start) and not topic.endswith(".dlq")
    )


def retention(admin: Admin, topic: str) -> tuple[int, int]:
    """How many milliseconds, and bytes a partition, a topic keeps; negative: as many as come."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    answers = admin.describe_configs([resource], request_timeout=TIMEOUT_S)
    settings = _settings(topic, answers[resource])
    return int(settings["retention.ms"]), int(settings["retention.bytes"])


def _check_settings(
    admin: Admin, names: TopicNames, providers: Iterable[str], listed: ClusterMetadata
) -> None:
    """Nothing may be deleted that counts, and all that we write must be taken."""
    users = (names.queries, names.feedback)
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in names.all(providers)]
    for resource, answer in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
        settings = _settings(resource.name, answer)
        _check_cleanup(resource.name, settings["cleanup.policy"], names)
        in_sync = int(settings.get("min.insync.replicas") or 1)  # not every broker tells
        partitions = listed.topics[resource.name].partitions.values()
        copies = min((len(partition.replicas) for partition in partitions), default=in_sync)
        if in_sync > copies:
            raise ConfigurationError(
                f"topic {resource.name!r} has min.insync.replicas={in_sync} and {copies} copies: "
                f"nothing could ever be written; set min.insync.replicas={copies} or less"
            )
        size = int(settings["max.message.bytes"])
        if resource.name not in users and size < MAX_RECORD_BYTES:
            raise ConfigurationError(
                f"topic {resource.name!r} has max.message.bytes={size}: our longest records would "
                f"be refused; set max.message.bytes={MAX_RECORD_BYTES}"
            )
        segment = int(settings.get("segment.bytes") or MAX_RECORD_BYTES)
        if resource.name not in users and segment < MAX_RECORD_BYTES:
            raise ConfigurationError(
                f"topic {resource.name!r} has segment.bytes={segment}: our longest records would "
                f"be refused; set segment.bytes={MAX_RECORD_BYTES} or more"
            )


def _check_cleanup(topic: str, policy: str, names: TopicNames) -> None:
    if topic in names.compacted:
        wanted, fits = "compact", policy == "compact"
        lost = "its newest records would be deleted"
    else:
        wanted, fits = "delete", "compact" not in policy
        lost = "of records with one key only the last would be kept, and none without a key taken"
    if not fits:
        raise ConfigurationError(
            f"topic {topic!r} has cleanup.policy={policy}: {lost}; set cleanup.policy={wanted}"
        )


def _settings(topic: str, answer: Future[dict[str, ConfigEntry]]) -> dict[str, str]:
    """A topic's settings. Raises `ConfigurationError` if we may not see them."""
    try:
        return {name: entry.value or "" for name, entry in answer.result().items()}
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
        raise ConfigurationError(
            f"the settings of topic {topic!r} are not visible to this user: grant DescribeConfigs "
            "on it"
        ) from exc


def _config(topic: str, names: TopicNames) -> dict[str, str]:
    if topic in names.compacted:
        return {
            "cleanup.policy": "compact",
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "min.cleanable.dirty.ratio": "0.1",
            # Whoever starts reads all of it, and the newest segment is never compacted: an hour of
            # policies is some hundred megabytes.
            "segment.bytes": str(SEGMENT_BYTES),
            "segment.ms": str(SEGMENT_MS),
            "delete.retention.ms": str(DAY_MS),
        }
    weeks = topic.endswith(".dlq") or topic == names.feedback
    size = 1024 * 1024 if topic in (names.queries, names.feedback) else MAX_RECORD_BYTES
    config = {
        "cleanup.policy": "delete",  # whatever brokers do by default
        "retention.ms": str((28 if weeks else 7) * DAY_MS),
        "max.message.bytes": str(size),
    }
    if topic in (names.decisions, names.results):
        # The broker's clock bounds what a service whose clock is ahead says of its time.
        config["message.timestamp.type"] = "LogAppendTime"
    return config


def _brokers(listed: ClusterMetadata) -> set[int]:
    """Every broker that is there, or is down and holds a copy of some topic."""
    partitions = chain.from_iterable(topic.partitions.values() for topic in listed.topics.values())
    return set(listed.brokers).union(*(partition.replicas for partition in partitions))


def _listed(admin: Admin) -> ClusterMetadata:
    """What brokers say, as soon as one answers; that they refuse us is told without waiting."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return admin.list_topics(timeout=ASK_AGAIN_S)
        except KafkaException as exc:
            refusal = admin.refusal()
            if refusal is not None:
                kind = Unreachable if refusal.startswith(_NOT_ACQUIRED) else ConfigurationError
                raise kind(
                    f"Kafka and we do not agree on how to connect: {refusal}: see the settings "
                    "KAFKA_SECURITY_*, KAFKA_SASL_* and KAFKA_SSL_*"
                ) from exc
            if time.monotonic() > deadline:
                raise Unreachable(f"Kafka does not answer: {exc.args[0].str()}") from exc


def _is_made(topic: str, answer: Future[None]) -> bool:
    try:
        answer.result(TIMEOUT_S)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise ConfigurationError(f"cannot create topic {topic!r}: {exc.args[0].str()}") from exc
    return True


def _missing(admin: Admin, topics: Iterable[str], patience_s: float) -> list[str]:
    """Which topics nobody knows: each broker hears of a new one a moment after it was made."""
    deadline = time.monotonic() + patience_s
    while missing := sorted(set(topics) - _listed(admin).topics.keys()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return missing
