"""Finds partitions that a settled group has left to nobody, and that nobody would ever read again.

A cooperative rebalance takes two rounds: one in which a member gives partitions up, one in which
another is given them. Members that are killed and come back between the two, or while the broker
itself comes back, are told their part as it was, and the group is at rest with partitions that no
member has. Nothing in the protocol wakes it.

Invariant: a group in motion, or one that cannot be asked, is never found fault with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import ConsumerGroupDescription

from metallm_stream.kafka.connect import Admin
from metallm_stream.kafka.records import Partition


def unread(
    admin: Admin,
    group: str,
    instance: str,
    topics: Sequence[str],
    held: Collection[Partition],
    timeout_s: float,
) -> frozenset[Partition]:
    """Partitions of `topics` that neither `instance` holds nor the group has given to another.

    Parameters
    ----------
    admin
        Who asks.
    group, instance
        The group, and the static member that asks about it.
    topics
        Names, and patterns that begin with ^, as subscribed to.
    held
        What the member itself holds, whatever the group believes.
    timeout_s
        How long each of the two questions may take.

    Returns
    -------
    frozenset
        Empty as well where the group is balancing or the brokers do not answer.
    """
    (asked,) = admin.describe_consumer_groups([group], request_timeout=timeout_s).values()
    if asked.exception() is not None:  # raised, it would keep the client alive in a circle
        return frozenset()
    description: ConsumerGroupDescription = asked.result()
    if description.state != ConsumerGroupState.STABLE:
        return frozenset()
    try:
        existing = admin.list_topics(timeout=timeout_s).topics
    except KafkaException:
        return frozenset()
    others = {
        (item.topic, item.partition)
        for member in description.members
        if member.group_instance_id != instance
        for item in member.assignment.topic_partitions
    }
    wanted = {
        (name, partition)
        for name, topic in existing.items()
        if _is_among(name, topics)
        for partition in topic.partitions
    }
    return frozenset(wanted - others - set(held))


def _is_among(name: str, topics: Sequence[str]) -> bool:
    return any(
        re.match(topic, name) is not None if topic.startswith("^") else topic == name
        for topic in topics
    )
