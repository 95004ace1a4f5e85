"""Prompt templates are data, checked before they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Query
from metallm_stream.judge import prompt
from metallm_stream.judge.dispatch import template
from metallm_stream.judge.templates import PLACEHOLDERS, load, shipped

ASK = Query(query_id="q", text="Great {labels}!", labels=("good", "bad {text}"))
GOOD = 'name = "mine"\nversion = 3\nuser = "{text}: {labels}"\n'


def write(directory: Path, kind: str, text: str) -> Path:
    (directory / f"{kind}.toml").write_text(text)
    return directory


def test_every_kind_of_task_has_a_template() -> None:
    """Under its own name, the version a number."""
    marks = {kind: one.mark for kind, one in shipped().by_kind.items()}
    assert marks.keys() == PLACEHOLDERS.keys()
    assert all(mark.startswith(f"{kind}@") for kind, mark in marks.items())


def test_a_directory_replaces_the_templates_that_it_has(tmp_path: Path) -> None:
    """The others stay; name and version are those of the file."""
    templates = load(write(tmp_path, "classification", GOOD))
    assert template(ASK, templates).mark == "mine@3"
    free = Query(query_id="q", text="Hello")
    assert template(free, templates) == template(free)


def test_what_is_filled_in_is_no_template(tmp_path: Path) -> None:
    """A text with a placeholder's name in braces is asked as it stands."""
    (turn,) = prompt(ASK, load(write(tmp_path, "classification", GOOD)))
    assert turn["content"] == "Great {labels}!: - good\n- bad {text}"


def test_other_braces_stay(tmp_path: Path) -> None:
    """A template may show JSON."""
    text = "version = 1\nname = \"json\"\nuser = '''{text} {\"a\": {}} {labels}'''\n"
    (turn,) = prompt(ASK, load(write(tmp_path, "classification", text)))
    assert '{"a": {}}' in turn["content"]


def test_a_querys_own_system_prompt_is_stronger(tmp_path: Path) -> None:
    """The template's is for queries that bring none."""
    templates = load(write(tmp_path, "classification", GOOD + 'system = "Be terse."\n'))
    own = ASK.model_copy(update={"system": "Be kind."})
    assert prompt(ASK, templates)[0] == {"role": "system", "content": "Be terse."}
    assert prompt(own, templates)[0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("classification", GOOD.replace("{labels}", "labels"), "needs {text} and {labels}"),
        ("classification", GOOD.replace("{labels}", "{labels} {task}"), "see task"),
        ("classification", GOOD.replace("{text}", "{text.x}"), "see text"),
        ("classification", GOOD.replace("3", "0"), "version"),
        ("classification", GOOD.replace("3", '"3"'), "version"),
        ("classification", GOOD.replace("name", "title"), "title"),
        ("classification", GOOD + "user = 1\n", "line 4"),
        ("number", GOOD, "see labels"),
        ("sorting", GOOD, "no kind of task"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    tmp_path: Path, kind: str, text: str, said: str
) -> None:
    """With the file's name and what is wrong, when it is loaded."""
    with pytest.raises(ConfigurationError) as refused:
        load(write(tmp_path, kind, text))
    assert f"{kind}.toml" in str(refused.value)
    assert said in str(refused.value)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """Rather than falling back to other prompts than were meant."""
    with pytest.raises(ConfigurationError, match="no directory"):
        load(tmp_path / "absent")
