"""The identity that a broker's log directory must have before the first start.

Invariant: a directory that holds records is never touched. What Kafka's own tool wrote the first
time is kept, and later directories get a copy of it with an identity of their own, because
running the tool takes as long as starting the broker.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from metallm_stream.embedded.child import ChildFailed
from metallm_stream.embedded.kafka import Broker, Distribution, java_environment
from metallm_stream.embedded.state import write_whole

_CHECKPOINT = "bootstrap.checkpoint"  # the feature levels of this version: no identity in it


def format_cluster(distribution: Distribution, brokers: Sequence[Broker]) -> bool:
    """Prepare the log directories of a cluster's brokers; whether all of them are new.

    A broker whose directory was lost joins the cluster of the others and copies what they have.

    Raises
    ------
    ChildFailed
        When Kafka's tool refuses, with what it said.
    """
    used = [broker for broker in brokers if broker.is_used]
    cluster_id = _cluster_id(used[0]) if used else _new_id()
    for broker in brokers:
        format_storage(distribution, broker, cluster_id)
    return not used


def format_storage(distribution: Distribution, broker: Broker, cluster_id: str = "") -> bool:
    """Prepare the broker's log directory; false where that was done before.

    Without a `cluster_id` it becomes a cluster of its own.

    Raises
    ------
    ChildFailed
        When Kafka's tool refuses, with what it said.
    """
    if broker.is_used:
        return False
    cluster_id = cluster_id or _new_id()
    shutil.rmtree(broker.log, ignore_errors=True)  # what an interrupted call has left
    kept = distribution.home / _CHECKPOINT
    if kept.exists():
        _write(broker, kept, cluster_id)
    else:
        _run_tool(distribution, broker, cluster_id)
        _keep(broker.log / _CHECKPOINT, kept)
    return True


def _cluster_id(broker: Broker) -> str:
    lines = (broker.log / "meta.properties").read_text().splitlines()
    (found,) = (line.partition("=")[2] for line in lines if line.startswith("cluster.id="))
    return found


def _write(broker: Broker, kept: Path, cluster_id: str) -> None:
    broker.log.mkdir()
    shutil.copyfile(kept, broker.log / _CHECKPOINT)
    properties = {
        "version": 1,
        "cluster.id": cluster_id,
        "directory.id": _new_id(),
        "node.id": broker.node,
    }
    lines = (f"{name}={value}\n" for name, value in properties.items())
    write_whole(broker.log / "meta.properties", "".join(lines))


def _keep(checkpoint: Path, kept: Path) -> None:
    draft = kept.with_name(f"{kept.name}.{uuid.uuid4()}")
    shutil.copyfile(checkpoint, draft)
    draft.replace(kept)


def _run_tool(distribution: Distribution, broker: Broker, cluster_id: str) -> None:
    done = subprocess.run(  # noqa: S603 - absolute paths of ours
        distribution.argv(
            "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(broker.properties)
        ),
        env=java_environment(),
        cwd=broker.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2_000:]
        raise ChildFailed(f"Kafka could not format {broker.log}: {said}")


def _new_id() -> str:
    """22 URL-safe characters; one that begins with a hyphen would look like an option."""
    while True:
        drawn = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]
        if not drawn.startswith("-"):
            return drawn
