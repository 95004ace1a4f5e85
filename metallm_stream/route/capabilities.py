"""What queries need of an arm, beside what the catalogue says that each arm can do.

Invariant: what the catalogue does not say counts for an arm only where being wrong does no harm.

- `needs`: every tag must stand among the arm's `tags`; a capability must be said.
- `language`: one of the arm's `languages` must be it or a less specific form of it (`pt` serves
  `pt-BR`); an arm without `languages` serves all.
- `regions`: the arm's `regions` are where it may process a query, and all of them must be allowed.
  An arm without `regions` may process it anywhere, so it is excluded.
- `generation.max_output_tokens`: must not exceed the arm's own, where that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Model, Query

_NAMES_SHOWN = 5

Mask = NDArray[np.bool_]


def capable(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    """Arms with every tag that a query needs, `(n, K)`."""
    tags = [frozenset(model.tags) for model in models]
    return _mask(
        queries,
        models,
        lambda query: bool(query.needs),
        lambda query, k: tags[k].issuperset(query.needs or ()),
    )


def speaking(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    """Arms that serve a query's language, `(n, K)`."""

    def speaks(query: Query, k: int) -> bool:
        known = models[k].languages
        wanted = (query.language or "").lower()
        return not known or any(f"{wanted}-".startswith(f"{item.lower()}-") for item in known)

    return _mask(queries, models, lambda query: query.language is not None, speaks)


def resident(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    """Arms that process a query in the regions that it allows and nowhere else, `(n, K)`."""

    def stays(query: Query, k: int) -> bool:
        where = models[k].regions
        return bool(where) and set(where or ()) <= set(query.regions or ())

    return _mask(queries, models, lambda query: query.regions is not None, stays)


def writing(queries: Sequence[Query], models: Sequence[Model]) -> Mask:
    """Arms that can write as many tokens as a query asks for, `(n, K)`."""

    def writes(query: Query, k: int) -> bool:
        return output_tokens(query) <= (models[k].max_output_tokens or np.inf)

    return _mask(queries, models, lambda query: output_tokens(query) > 0, writes)


def incapable_reason(query: Query, excluded: Sequence[Model]) -> str:
    """Why `needs` left none of the excluded arms."""
    has = {tag for model in excluded for tag in model.tags}
    missing = [tag for tag in query.needs or () if tag not in has]
    lacking = missing or list(query.needs or ())
    together = "" if missing else " together"
    return (
        f"needs: {names(lacking)} {'is' if len(lacking) == 1 else 'are'} not{together} among the"
        f" tags of {names(model.arm for model in excluded)}; tag an arm that can do it"
        " (`metallm models add --tag`), or leave it out"
    )


def speechless_reason(query: Query, excluded: Sequence[Model]) -> str:
    """Why `language` left none of the excluded arms."""
    spoken = names(sorted({item for model in excluded for item in model.languages or ()}))
    return (
        f"language: {query.language!r} is not served by {names(model.arm for model in excluded)}"
        f" (languages: {spoken}); add an arm that does, or leave `language` out"
    )


def elsewhere_reason(query: Query, excluded: Sequence[Model]) -> str:
    """Why `regions` left none of the excluded arms."""
    where = [f"{m.arm!r} in {names(m.regions) if m.regions else 'unknown'}" for m in excluded]
    more = f" and {len(where) - _NAMES_SHOWN} more" if len(where) > _NAMES_SHOWN else ""
    return (
        f"regions: only {names(query.regions or ())} allowed, but arms process"
        f" {', '.join(where[:_NAMES_SHOWN])}{more}; allow more regions, or say the arm's"
        " (`metallm models add --region`)"
    )


def too_brief_reason(query: Query, excluded: Sequence[Model]) -> str:
    """Why the requested length of the answer left none of the excluded arms."""
    most = max(model.max_output_tokens or 0 for model in excluded)
    return (
        f"generation.max_output_tokens: {output_tokens(query)} exceeds what"
        f" {names(model.arm for model in excluded)} can write (at most {most} tokens);"
        " lower it or allow an arm that writes more"
    )


def output_tokens(query: Query) -> int:
    """How long an answer the query asks for, in tokens; 0 if it does not say."""
    return (query.generation.max_output_tokens or 0) if query.generation else 0


def names(every: Iterable[str]) -> str:
    """Quoted names, the first few of many.

    >>> names("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    listed = list(every)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in listed[:_NAMES_SHOWN]) + more


def _mask(
    queries: Sequence[Query],
    models: Sequence[Model],
    says: Callable[[Query], bool],
    meets: Callable[[Query, int], bool],
) -> Mask:
    """True but where a query that says something is not met by an arm."""
    mask = np.ones((len(queries), len(models)), dtype=np.bool_)
    for row, query in enumerate(queries):
        if says(query):
            mask[row] = [meets(query, k) for k in range(len(models))]
    return mask
