"""What a process had spent under its cap before it was started again."""

from __future__ import annotations

import logging
from contextlib import closing

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import WorkerSpend
from metallm_stream.kafka import Connection, Follower, TopicNames
from metallm_stream.providers import Spending

log = logging.getLogger(__name__)


def restore(spending: Spending, connection: Connection, names: TopicNames) -> None:
    """Read what this slot had spent; its predecessor is fenced, so nothing more will come."""
    with closing(Follower(connection, [names.health])) as follower:
        for message in follower.catch_up():
            if message.key() == spending.key.encode() and message.value() is not None:
                try:
                    spending.restore(WorkerSpend.parse(message.value()))
                except InvalidEvent as exc:
                    log.error("%s: what was spent is ignored: %s", spending.key, exc.reason)
