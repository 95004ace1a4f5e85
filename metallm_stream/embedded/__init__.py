"""Real servers from packages, and the supervisor that keeps them running."""

from metallm_stream.embedded.child import Account, Child, ChildFailed, Command
from metallm_stream.embedded.postgres_place import remove_state
from metallm_stream.embedded.progress import Listener, Progress
from metallm_stream.embedded.stack import EmbeddedStack
from metallm_stream.embedded.state import AlreadyRunning, StateDirectory, write_whole
from metallm_stream.embedded.supervisor import Supervisor

__all__ = [
    "Account",
    "AlreadyRunning",
    "Child",
    "ChildFailed",
    "Command",
    "EmbeddedStack",
    "Listener",
    "Progress",
    "StateDirectory",
    "Supervisor",
    "remove_state",
    "write_whole",
]
