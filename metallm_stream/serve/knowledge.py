"""What `models`, `policy` and `health` say now: the catalogue, the newest policy, who is down.

Invariant: a policy is adopted whole or not at all, and never an older one than the one in force.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing

import orjson
from confluent_kafka import Message

from metallm_stream.arms import Catalogue
from metallm_stream.errors import ConfigurationError, InvalidEvent
from metallm_stream.events import (
    ArmHealth,
    BudgetAccount,
    Model,
    PolicyArm,
    PolicyManifest,
    RiverPart,
)
from metallm_stream.kafka import Connection, Follower, TopicNames
from metallm_stream.policy import Published, Stateful

log = logging.getLogger(__name__)


class Knowledge:
    """Follows the compacted topics.

    Parameters
    ----------
    connection, names
        The cluster and its topics.
    encoder
        Identity of the encoder in use; None follows the catalogue alone.
    rule
        What follows the state that is published with the policy, if anything does.
    dimensions
        Length of the encoder's contexts.

    Raises
    ------
    ConfigurationError
        On reading, when the only policy that there is was learned with another encoder. While one
        of ours is in force, others are ignored.
    """

    def __init__(
        self,
        connection: Connection,
        names: TopicNames,
        encoder: str | None,
        rule: Stateful | None = None,
        dimensions: int | None = None,
    ) -> None:
        self._names = names
        self._encoder, self._dimensions = encoder, dimensions
        self._foreign: str | None = None
        self._rule = rule
        self._arms: dict[str, PolicyArm] = {}
        self._parts: dict[int, RiverPart] = {}
        self.catalogue = Catalogue()
        self.published: Published | None = None
        self._accounts: dict[tuple[str, str], BudgetAccount | None] = {}
        self._health: list[ArmHealth] = []
        topics = [names.models] if encoder is None else list(names.compacted)
        self._follower = Follower(connection, topics)

    def catch_up(self) -> None:
        """Read everything up to the present ends."""
        self._apply(self._follower.catch_up())

    def refresh(self) -> list[tuple[str, Model | None]]:
        """Read what has come since, without waiting; returns the changes of the catalogue."""
        return self._apply(self._follower.poll())

    def take_accounts(self) -> dict[tuple[str, str], BudgetAccount | None]:
        """The accounts that have come since the last call, by budget and key; None: forgotten."""
        taken, self._accounts = self._accounts, {}
        return taken

    def take_health(self) -> list[ArmHealth]:
        """What workers have said of arms since the last call, in order."""
        taken, self._health = self._health, []
        return taken

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _apply(self, messages: Iterable[Message]) -> list[tuple[str, Model | None]]:
        changes = []
        for message in messages:
            key = (message.key() or b"").decode(errors="replace")
            try:
                if message.topic() == self._names.policy:
                    self._apply_policy(key, message.value())
                elif message.topic() == self._names.health:
                    self._apply_health(message.value())
                else:
                    value = message.value()
                    if value is None and key not in self.catalogue:
                        continue
                    model = None if value is None else Model.parse(value)
                    self.catalogue.apply(key, model)
                    changes.append((key, model))
            except InvalidEvent as exc:
                log.error("%s, key %r: ignored: %s", message.topic(), key, exc.reason)
        if self.published is None and self._foreign is not None:
            raise ConfigurationError(self._foreign)
        return changes

    def _apply_policy(self, key: str, value: bytes | None) -> None:
        if value is None:
            head, *place = key.split("/", 2)
            if head == "budget" and len(place) == 2:
                self._accounts[place[0], place[1]] = None
            return
        kind = _kind(value)
        if kind == "arm":
            arm = PolicyArm.parse(value)
            self._arms[arm.arm] = arm
            return
        if kind == "river":
            if self._rule is not None:
                part = RiverPart.parse(value)
                self._parts[part.part] = part
            return
        if kind == "budget":
            account = BudgetAccount.parse(value)
            self._accounts[account.budget, account.key] = account
            return
        manifest = PolicyManifest.parse(value)
        if self.published is not None and manifest.version <= self.published.version:
            return
        self._adopt(manifest)

    def _apply_health(self, value: bytes | None) -> None:
        if value is not None and _kind(value) == "arm":
            self._health.append(ArmHealth.parse(value))

    def _adopt(self, manifest: PolicyManifest) -> None:
        published = Published.from_records(manifest, self._arms.values())
        if manifest.encoder != self._encoder:
            self._foreign = (
                f"policy {manifest.version} was learned with encoder {manifest.encoder!r}, the "
                f"setting `encoder` here gives {self._encoder!r}: use the same for all services"
            )
            raise InvalidEvent(self._foreign)
        if self._dimensions not in (None, manifest.dimensions):
            raise InvalidEvent(
                f"dimensions: policy {manifest.version} has {manifest.dimensions}, encoder "
                f"{self._encoder!r} gives {self._dimensions}"
            )
        if self._rule is not None and manifest.river is not None:
            self._rule.adopt(manifest.river, self._parts)
        elif self._rule is not None and (
            self.published is None or self.published.manifest.river is not None
        ):
            log.warning(
                "policy %d comes without a state of the policy that chooses here: set "
                "METALLM_ROUTER__POLICY for the learner as well",
                manifest.version,
            )
        self.published = published
        self._arms = {name: self._arms[name] for name in manifest.arms}


def read_catalogue(connection: Connection, names: TopicNames) -> Catalogue:
    """The catalogue as its topic has it now."""
    with closing(Knowledge(connection, names, None)) as knowledge:
        knowledge.catch_up()
    return knowledge.catalogue


def _kind(value: bytes) -> object:
    try:
        return orjson.loads(value).get("kind")
    except (orjson.JSONDecodeError, AttributeError) as exc:
        raise InvalidEvent(f"no record with a kind: {exc}") from exc
