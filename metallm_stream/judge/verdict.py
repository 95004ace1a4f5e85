"""A model as judge: which answers are drawn, what the judge is asked, and what its reply says.

Invariant: whether an answer is drawn depends on the query alone, neither on the arm nor on the
answer, so propensities stay those of the policy. What the judge is shown is fenced by a digest of
both texts, which no text can contain on purpose, and its reply is a score or none: nothing is
guessed from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from metallm_stream.events import Call, Case, Query, Result
from metallm_stream.judge.answer_text import ends, final
from metallm_stream.judge.templates import Template

_SCALE = 10.0
_SCORE = re.compile(
    r"(?:score\s*[:=]\s*)?([0-9]{1,2}(?:\.[0-9]{1,6})?)(?:\s*/\s*10)?", re.IGNORECASE
)
_MARKUP = " \t*_`#."


def is_drawn(query_id: str, share: float, seed: int) -> bool:
    """Whether a query is among the share that is judged; a larger share adds to a smaller one.

    >>> [is_drawn("q-1", share, seed=1) for share in (0.0, 1.0)]
    [False, True]
    """
    digest = hashlib.blake2b(query_id.encode(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def case_of(call: Call, result: Result, *, share: float, seed: int) -> Case | None:
    """What is put before the judge: an answered free text that is drawn; None for all else.

    A query that says in which regions it may be processed is never drawn.
    """
    query, text = call.query, result.text
    is_apt = query.labels is None and query.answer is None and query.regions is None
    if not is_apt or text is None or result.arm is None:
        return None
    if not is_drawn(query.query_id, share, seed):
        return None
    model = next((one.model for one in call.ranking if one.arm == result.arm), result.arm)
    return Case(
        query_id=query.query_id,
        call_id=call.call_id,
        arm=result.arm,
        model=model,
        question=ends("\n\n".join(_turns(query))),
        answer=final(text),
    )


def is_own(case: Case, judge: str) -> bool:
    """Whether the judge would judge its own model, whatever provider's prefix stands before it.

    >>> texts = {"question": "Why?", "answer": "So."}
    >>> case = Case(query_id="q", call_id="c", arm="a", model="openai/GPT-4o", **texts)
    >>> is_own(case, "gpt-4o"), is_own(case, "gpt-4o-mini")
    (True, False)
    """
    one, other = (name.rpartition("/")[2].casefold() for name in (case.model, judge))
    return one == other


def judge_prompt(case: Case, template: Template) -> str:
    """The user's turn that is sent to the judge."""
    parts = (case.question, case.answer)
    digest = hashlib.sha256("\x00".join(parts).encode("utf-8", "replace")).hexdigest()
    fence = f"=== {digest[:24]} ==="
    return template.filled({"question": case.question, "answer": case.answer, "fence": fence})


def read_score(text: str) -> float | None:
    r"""The score in [0, 1] on the last line of the judge's reply; None unless it is there alone.

    >>> read_score("Right, but long.\nScore: 8"), read_score("**7.5/10**"), read_score("8 or 9")
    (0.8, 0.75, None)
    """
    lines = final(text).strip().splitlines()
    found = _SCORE.fullmatch(lines[-1].strip(_MARKUP)) if lines else None
    if found is None or float(found[1]) > _SCALE:
        return None
    return float(found[1]) / _SCALE


def _turns(query: Query) -> Iterator[str]:
    """The conversation as text; a single turn stands without its role."""
    if query.system is None and not query.messages:
        yield query.text
        return
    if query.system is not None:
        yield f"[system]\n{query.system}"
    for turn in query.messages or ():
        yield f"[{turn.role}]\n{turn.content}"
    yield f"[user]\n{query.text}"
