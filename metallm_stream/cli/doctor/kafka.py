"""Kafka as far as it can be seen: brokers, topics, models, the policy, the services' groups.

Invariant: nothing is written, and no group is joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from metallm_stream.arms import Catalogue
from metallm_stream.cli.cluster import cluster, refusals
from metallm_stream.cli.doctor.costs import unknown_cost
from metallm_stream.cli.doctor.finding import Finding, guarded, ok, problem, warning
from metallm_stream.cli.doctor.labels import unjudged
from metallm_stream.events import PolicyArm, PolicyManifest
from metallm_stream.kafka import UNSEEN, Admin, Connection, Follower, TopicNames, check
from metallm_stream.serve.surroundings import names
from metallm_stream.settings import Settings

REQUEST_S = 10.0
VERSION = "inter.broker.protocol.version"
MANIFEST, ARM = b'"kind":"manifest"', b'"kind":"arm"'


def connect(settings: Settings) -> tuple[Connection | None, Finding]:
    """The cluster, if it answers; raises `ConfigurationError` if no address is set."""
    addresses = settings.bootstrap()
    if refused := refusals(addresses):
        return None, problem(
            "kafka",
            f"nothing answers: {refused}",
            "start Kafka (`metallm up` runs one), or mend KAFKA_BOOTSTRAP_SERVERS",
        )
    connection = cluster(settings)
    admin = connection.admin()
    try:
        found = admin.describe_cluster(request_timeout=REQUEST_S).result()
    except KafkaException as exc:
        return None, problem(
            "kafka",
            f"{addresses} takes connections, but does not answer as Kafka: "
            f"{admin.refusal() or exc.args[0].str()}",
            "check the port, and KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_*",
        )
    brokers = ", ".join(f"{node.host}:{node.port}" for node in found.nodes)
    version = _version(admin, found.nodes[0].id)
    return connection, ok("kafka", f"brokers {brokers}; {version}")


def topics(settings: Settings, existing: Mapping[str, int], admin: Admin) -> Iterator[Finding]:
    """Whether the topics exist and can keep the guarantees."""
    all_names, make = names(settings), "metallm topics create"
    missing = [topic for topic in all_names.all(()) if topic not in existing]
    if missing:
        yield problem("topics", f"{UNSEEN}: {', '.join(missing)}", make)
    else:
        yield from guarded("topics", lambda: _fitting(all_names, existing, admin))
    for provider in sorted(settings.providers):
        lacking = [each for each in _of_provider(all_names, provider) if each not in existing]
        if lacking:
            yield warning("topics", f"provider {provider} lacks {', '.join(lacking)}", make)


def _fitting(all_names: TopicNames, existing: Mapping[str, int], admin: Admin) -> Iterator[Finding]:
    check(admin, all_names, _with_calls(all_names, existing))
    read = (all_names.queries, all_names.decisions, all_names.results, all_names.feedback)
    counts = ", ".join(f"{topic} {existing[topic]}" for topic in read)
    yield ok("topics", f"partitions: {counts}; models and policy are compacted")


def models(
    settings: Settings, existing: Mapping[str, int], catalogue: Catalogue
) -> Iterator[Finding]:
    """Whether there are models, and a way to each one's provider."""
    if not len(catalogue):
        yield warning("models", "none: every query fails", "metallm models add ARM --provider NAME")
        return
    arms = catalogue.arms.values()
    providers = sorted({model.provider for model in arms})
    yield ok("models", f"{len(arms)} at {', '.join(providers)}: {', '.join(catalogue)}")
    kind, _, fixed = settings.router.policy.partition(":")
    if kind == "fixed" and fixed not in catalogue:
        yield warning(
            "models",
            f"METALLM_ROUTER__POLICY={settings.router.policy}: {fixed!r} is not in the catalogue, "
            "so each query goes to the arm of highest expected utility",
            "mend the name, or add the model",
        )
    for provider in providers:
        which = ", ".join(model.arm for model in arms if model.provider == provider)
        topic = names(settings).calls(provider)
        if topic not in existing:
            yield problem(
                "models",
                f"{which}: topic {topic} of provider {provider} is {UNSEEN}",
                "`metallm models add` makes it, as does `metallm topics create` where it is "
                "configured",
            )
        if provider not in settings.providers:
            yield warning(
                "models",
                f"{which}: provider {provider} is not in these settings, no worker can run here",
                f"set METALLM_PROVIDERS__{provider.upper()}__BASE_URL, or its section in the file",
            )


def policy(
    settings: Settings,
    connection: Connection,
    catalogue: Catalogue,
    encoder: str | None,
    now: datetime,
) -> Iterator[Finding]:
    """The newest policy, its encoder, and arms of unknown cost or that nobody judges."""
    manifests, arms = _published(connection, names(settings))
    if not manifests:
        yield warning(
            "policy",
            "none yet: routers try all models evenly",
            "run a learner; it publishes once there are models",
        )
    else:
        newest = max(manifests, key=lambda manifest: manifest.version)
        age_s = (now - newest.published_at).total_seconds()
        yield ok(
            "policy",
            f"version {newest.version}, {age_s:.0f} s old, labels: {newest.observations:g}",
        )
        if encoder is not None and newest.encoder != encoder:
            yield problem(
                "policy",
                f"learned with encoder {newest.encoder}, these settings give {encoder}",
                "set METALLM_ENCODER to the same for all services",
            )
    for model in catalogue.arms.values():
        yield from unknown_cost(settings, model, arms.get(model.arm))
    yield from unjudged(part for arm, part in arms.items() if arm in catalogue)


def _published(
    connection: Connection, topic_names: TopicNames
) -> tuple[list[PolicyManifest], dict[str, PolicyArm]]:
    """The heads of policies that the topic has, and the newest part of each arm."""
    manifests, arms = [], {}
    with closing(Follower(connection, [topic_names.policy])) as follower:
        for value in (message.value() or b"" for message in follower.catch_up()):
            if MANIFEST in value:
                manifests.append(PolicyManifest.parse(value))
            elif ARM in value:
                arm = PolicyArm.parse(value)
                arms[arm.arm] = arm
    return manifests, arms


def services(settings: Settings, admin: AdminClient, catalogue: Catalogue) -> Iterator[Finding]:
    """How many replicas of each service are in their groups, and whether they have partitions.

    Where there are models, a service whose work nobody does is a problem.
    """
    start = f"{names(settings).prefix}metallm-"
    providers = sorted({model.provider for model in catalogue.arms.values()})
    wanted = {
        "router": "python services/router.py",
        "learner": "python services/learner.py",
        **{f"worker-{name}": f"python services/worker.py --provider {name}" for name in providers},
    }
    if settings.judge.provider is not None:
        wanted["judge"] = "python services/judge.py"
    asked = admin.describe_consumer_groups(
        [start + service for service in wanted], request_timeout=REQUEST_S
    )
    running = []
    for group, answer in asked.items():
        service = group.removeprefix(start)
        try:
            count, partitions = _members(answer)
        except KafkaException as exc:
            remedy = f"see the brokers' logs; it takes Describe on group {group}"
            yield problem("services", f"{service}: {exc.args[0].str()}", remedy)
            continue
        if count and partitions:
            running.append(f"{count} {service}")
        else:
            yield absent(service, count, wanted[service], is_needed=bool(len(catalogue)))
    if running:
        yield ok("services", ", ".join(running))


def absent(service: str, count: int, command: str, *, is_needed: bool) -> Finding:
    """A service of whose `count` replicas none has a partition: nobody does its work."""
    if count:
        return problem(
            "services",
            f"{count} {service} in the group, none with a partition",
            "ask again in ten seconds; if it stays so, see its log and end it: a restart mends",
        )
    found = problem if is_needed else warning
    return found(
        "services",
        f"no {service} is in its group",
        f"{command}; if one runs already, see its log and end it: a restart mends",
    )


def _members(answer: object) -> tuple[int, int]:
    """Members of a group, and the partitions that they have."""
    try:
        group = answer.result(REQUEST_S)  # type: ignore[attr-defined]
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0, 0
        raise
    members = [] if group.state == ConsumerGroupState.DEAD else group.members
    assigned = [member.assignment.topic_partitions for member in members if member.assignment]
    return len(members), sum(map(len, assigned))


def _with_calls(all_names: TopicNames, existing: Mapping[str, int]) -> list[str]:
    """The providers that have both of their topics."""
    start = all_names.calls("")
    named = [topic.removeprefix(start) for topic in existing if topic.startswith(start)]
    return [name for name in named if existing.keys() >= {*_of_provider(all_names, name)}]


def _of_provider(all_names: TopicNames, provider: str) -> list[str]:
    calls = all_names.calls(provider)
    return [calls, all_names.dead_letters(calls)]


def _version(admin: AdminClient, broker: int) -> str:
    """The brokers' protocol version, which clusters of Kafka 4 no longer tell, nor just anybody."""
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    answer = admin.describe_configs([resource], request_timeout=REQUEST_S)
    try:
        entry = answer[resource].result().get(VERSION)
    except KafkaException as exc:
        return f"version not told: {exc.args[0].str()}"
    return "version not told" if entry is None else f"protocol version {entry.value}"
