"""A small real HTTP server that answers on the vendors' wires from logged outcomes of real models.

In goes a recording (JSON lines of texts and what each model answered); out comes a vendor for
demos, load tests and dry runs of one's own logs, with latencies and faults as set.
"""

from metallm_stream.embedded.recorded_llm.faults import ChatRequest, Fault, Faults, SeededFaults
from metallm_stream.embedded.recorded_llm.latency import Latency
from metallm_stream.embedded.recorded_llm.ledger import Ledger
from metallm_stream.embedded.recorded_llm.recording import Outcome, Recording, read_recording
from metallm_stream.embedded.recorded_llm.server import RecordedLLM

__all__ = [
    "ChatRequest",
    "Fault",
    "Faults",
    "Latency",
    "Ledger",
    "Outcome",
    "RecordedLLM",
    "Recording",
    "SeededFaults",
    "read_recording",
]
