"""What a query needs is held against what the catalogue says of each arm, before any choice."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metallm_stream.events import Generation, Model, Query
from tests.unit.test_route_decide import ask, catalogue, one, policy

ARMS = catalogue(
    big={
        "tags": ("vision", "json"),
        "languages": ("de", "pt"),
        "regions": ("eu-west", "us-east"),
        "max_output_tokens": 4_000,
    },
    mid={"tags": ("json",), "regions": ("eu-west",), "context_window_tokens": 1_000},
)


def left(**query: Any) -> list[str]:
    """The arms that a query may use."""
    return [item.arm for item in one(arms=ARMS, published=policy(), query=query).candidates]


def refused(**query: Any) -> str:
    """Why a query may use none."""
    refusal = one(arms=ARMS, published=policy(), query=query).refusal
    assert refusal is not None
    assert refusal.kind == "no_arm"
    return refusal.message


@pytest.mark.parametrize(
    ("query", "arms"),
    [
        ({}, ["big", "mid", "mini"]),
        ({"needs": ()}, ["big", "mid", "mini"]),
        ({"needs": ("json",)}, ["big", "mid"]),
        ({"needs": ("json", "vision")}, ["big"]),
        ({"language": "de"}, ["big", "mid", "mini"]),
        ({"language": "PT-br"}, ["big", "mid", "mini"]),
        ({"language": "fr"}, ["mid", "mini"]),
        ({"language": "den"}, ["mid", "mini"]),
        ({"regions": ("eu-west",)}, ["mid"]),
        ({"regions": ("us-east", "eu-west")}, ["big", "mid"]),
        ({"generation": Generation(max_output_tokens=4_000)}, ["big", "mini"]),
        ({"generation": Generation(max_output_tokens=4_001)}, ["mini"]),
        ({"generation": Generation(max_output_tokens=998)}, ["big", "mid", "mini"]),
        ({"generation": Generation(max_output_tokens=999)}, ["big", "mini"]),
        ({"needs": ("json",), "regions": ("eu-west",), "language": "fr"}, ["mid"]),
    ],
)
def test_only_arms_that_meet_every_need_are_left(query: dict[str, Any], arms: list[str]) -> None:
    """Tags must be named, regions named and all allowed; unnamed languages and lengths are free."""
    assert left(**query) == arms


def test_a_refusal_names_the_need_and_the_way_out() -> None:
    """Field, value, what there is instead, and what to do."""
    assert refused(needs=("json", "audio")) == (
        "needs: 'audio' is not among the tags of 'big', 'mid', 'mini'; tag an arm that can do it"
        " (`metallm models add --tag`), or leave it out"
    )
    assert refused(language="fr", models=("big",)) == (
        "language: 'fr' is not served by 'big' (languages: 'de', 'pt'); add an arm that does, or"
        " leave `language` out"
    )
    assert refused(regions=("us-east",)) == (
        "regions: only 'us-east' allowed, but arms process 'big' in 'eu-west', 'us-east', 'mid' in"
        " 'eu-west', 'mini' in unknown; allow more regions, or say the arm's"
        " (`metallm models add --region`)"
    )
    assert refused(generation=Generation(max_output_tokens=9_000), models=("big",)) == (
        "generation.max_output_tokens: 9000 exceeds what 'big' can write (at most 4000 tokens);"
        " lower it or allow an arm that writes more"
    )
    assert "about 2 tokens and 1000 for the answer exceed the context window of 'mid'" in refused(
        generation=Generation(max_output_tokens=1_000), models=("mid",)
    )


def test_tags_that_no_single_arm_has_are_named_together() -> None:
    """Each need is met by some arm, but no arm meets both."""
    arms = catalogue(("big", "mid"), big={"tags": ("a",)}, mid={"tags": ("b",)})
    refusal = one(arms=arms, query={"needs": ("a", "b")}).refusal
    assert refusal is not None
    assert "needs: 'a', 'b' are not together among the tags of 'big', 'mid'" in refusal.message


def test_a_refusal_names_every_need_that_excluded_an_arm() -> None:
    """One arm lacks the tag, another the language, a third the region and a fourth the length."""
    arms = catalogue(
        ("big", "mid", "mini", "tiny"),
        mid={"tags": ("t",), "languages": ("en",)},
        mini={"tags": ("t",)},
        tiny={"tags": ("t",), "regions": ("eu",), "max_output_tokens": 5},
    )
    query = {
        "needs": ("t",),
        "language": "de",
        "regions": ("eu",),
        "generation": Generation(max_output_tokens=6),
    }
    refusal = one(arms=arms, query=query).refusal
    assert refusal is not None
    fields = [reason.partition(":")[0] for reason in refusal.message.split("; and ")]
    assert fields == ["needs", "language", "regions", "generation.max_output_tokens"]


@pytest.mark.parametrize(
    "fields",
    [{"language": "german language"}, {"language": ""}, {"regions": ()}, {"regions": ("EU",)}],
)
def test_what_could_match_nothing_is_no_query(fields: dict[str, Any]) -> None:
    """A region in capitals or a language in words is refused when it is read, not when decided."""
    with pytest.raises(ValidationError):
        ask(**fields)


def test_a_call_carries_what_the_query_needed() -> None:
    """Needs and capabilities survive the wire."""
    query = ask(needs=("json",), language="de", regions=("eu",))
    assert Query.parse(query.encode()) == query
    model = Model(arm="a", provider="p", model="m", languages=("de",), regions=("eu",))
    assert Model.parse(model.encode()) == model
