"""Kafka: clients, topics, reading with and without a group, writing, and what brokers refuse."""

from metallm_stream.kafka.connect import Admin, Connection
from metallm_stream.kafka.exactly_once import ExactlyOnce, Work
from metallm_stream.kafka.follow import (
    Follower,
    first_offsets,
    offsets_since,
    partitions_of,
    read_from,
    read_from_start,
    read_tails,
    to_end,
    wait_settled,
)
from metallm_stream.kafka.lifeline import CutOffError, LeftOutError, Lifeline, Patience
from metallm_stream.kafka.messages import offset_of, partition_of, raise_unless_passing
from metallm_stream.kafka.out_of_order import Window
from metallm_stream.kafka.records import (
    OFFSET,
    PARTITION,
    REASON,
    SERVICE,
    TOPIC,
    Partition,
    Record,
    dead_letter,
    header,
    recorded_at,
)
from metallm_stream.kafka.rights import explained, require_rights
from metallm_stream.kafka.time_order import TimeOrder
from metallm_stream.kafka.topic_ids import MadeAnewError, topic_ids
from metallm_stream.kafka.topics import (
    UNSEEN,
    TopicNames,
    check,
    create,
    no_topic,
    providers_with_topics,
    retention,
)
from metallm_stream.kafka.trace import traced
from metallm_stream.kafka.transaction import AbortNeededError, Transactions
from metallm_stream.kafka.watchdog import Watchdog
from metallm_stream.kafka.watermarks import watermarks
from metallm_stream.kafka.write import NotWrittenError, begin_write, write

__all__ = [
    "OFFSET",
    "PARTITION",
    "REASON",
    "SERVICE",
    "TOPIC",
    "UNSEEN",
    "AbortNeededError",
    "Admin",
    "Connection",
    "CutOffError",
    "ExactlyOnce",
    "Follower",
    "LeftOutError",
    "Lifeline",
    "MadeAnewError",
    "NotWrittenError",
    "Partition",
    "Patience",
    "Record",
    "TimeOrder",
    "TopicNames",
    "Transactions",
    "Watchdog",
    "Window",
    "Work",
    "begin_write",
    "check",
    "create",
    "dead_letter",
    "explained",
    "first_offsets",
    "header",
    "no_topic",
    "offset_of",
    "offsets_since",
    "partition_of",
    "partitions_of",
    "providers_with_topics",
    "raise_unless_passing",
    "read_from",
    "read_from_start",
    "read_tails",
    "recorded_at",
    "require_rights",
    "retention",
    "to_end",
    "topic_ids",
    "traced",
    "wait_settled",
    "watermarks",
    "write",
]
