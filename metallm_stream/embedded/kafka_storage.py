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
from pathlib import Path

from metallm_stream.embedded.child import ChildFailed
from metallm_stream.embedded.kafka import NODE_ID, Broker, Distribution, java_environment
from metallm_stream.embedded.state import write_whole

_CHECKPOINT = "bootstrap.checkpoint"  # the feature levels of this version: no identity in it


def format_storage(distribution: Distribution, broker: Broker) -> bool:
    """Prepare the broker's log directory; false where that was done before.

    Raises
    ------
    ChildFailed
        When Kafka's tool refuses, with what it said.
    """
    if (broker.log / "__cluster_metadata-0").exists():
        return False
    shutil.rmtree(broker.log, ignore_errors=True)  # what an interrupted call has left
    kept = distribution.home / _CHECKPOINT
    if kept.exists():
        _write(broker, kept)
    else:
        _run_tool(distribution, broker)
        _keep(broker.log / _CHECKPOINT, kept)
    return True


def _write(broker: Broker, kept: Path) -> None:
    broker.log.mkdir()
    shutil.copyfile(kept, broker.log / _CHECKPOINT)
    properties = {
        "version": 1,
        "cluster.id": _new_id(),
        "directory.id": _new_id(),
        "node.id": NODE_ID,
    }
    lines = (f"{name}={value}\n" for name, value in properties.items())
    write_whole(broker.log / "meta.properties", "".join(lines))


def _keep(checkpoint: Path, kept: Path) -> None:
    draft = kept.with_name(f"{kept.name}.{uuid.uuid4()}")
    shutil.copyfile(checkpoint, draft)
    draft.replace(kept)


def _run_tool(distribution: Distribution, broker: Broker) -> None:
    done = subprocess.run(  # noqa: S603 - absolute paths of ours
        distribution.argv(
            "kafka.tools.StorageTool", "format", "-t", _new_id(), "-c", str(broker.properties)
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
