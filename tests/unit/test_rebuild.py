"""What a rebuild refuses before it reads anything."""

from __future__ import annotations

import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import Connection, TopicNames
from metallm_stream.serve.rebuild import read_log


def test_a_log_that_the_database_has_not_read_is_refused() -> None:
    """Another prefix would look like a model of which the log knows nothing."""
    read = {("decisions", 0): 7}
    nobody = Connection("127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"from decisions, and .*PREFIX=other\. names"):
        read_log(nobody, TopicNames("other."), read, "hash", 128)
