"""How many answers of real models the classification parser reads, and how often it is right.

Reads JSON lines as `metallm replay` does, optionally gzip'd, whose outcomes have an `answer`:

    python benchmarks/judge_parse.py css_text_classification.jsonl.gz

The labels of a query are the letters by which its text lists options ("A: Fear"), or "True" and
"False" where it lists none. For each task it prints the share of answers that are read (`read`),
that agree with the quality which the source recorded (`agree`, where the source's label is the
letter or the name of an option), and that are read the same where the labels are the options'
names and the letters are found in the text (`by name`).
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metallm_stream.events import Query
from metallm_stream.judge import parse

OPTION = re.compile(r"^([A-Z]): +(\w[^(\n]*)", re.MULTILINE)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def main() -> None:
    """Read the file, parse every answer, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="JSON lines, .gz or plain")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    unread: Counter[str] = Counter()
    for row in rows(parser.parse_args().file):
        options = listed(row["text"])
        for outcome in row["outcomes"].values():
            if not tally(counts[row["task"]], row, options, outcome):
                unread[outcome["answer"][:100]] += 1
    report(counts, unread)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The file's records, one a line."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    for line in io.StringIO(text, newline="\n"):
        yield json.loads(line)


def listed(text: str) -> dict[str, str]:
    """The options of a text by letter, if they are A, B, C and so on."""
    options = {letter: name.strip() for letter, name in OPTION.findall(text)}
    return options if len(options) > 1 and "".join(options) == LETTERS[: len(options)] else {}


def tally(
    tally: Counter[str], row: dict[str, Any], options: dict[str, str], outcome: dict[str, Any]
) -> bool:
    """Count one answer; True if it was read."""
    labels = tuple(options) or ("True", "False")
    begun = time.perf_counter()
    prediction = parse(query(row, labels), outcome["answer"])
    tally["µs"] += round((time.perf_counter() - begun) * 1e6)
    tally["answers"] += 1
    tally["read"] += prediction is not None
    meant = {row["label"].casefold(), options.get(row["label"], row["label"]).casefold()}
    if meant & {name.casefold() for name in (*labels, *options.values())}:
        named = {(prediction or "").casefold(), options.get(prediction or "", "").casefold()}
        tally["comparable"] += 1
        tally["agree"] += bool((named - {""}) & meant) == (outcome["quality"] >= 0.5)
    if options:
        by_name = parse(query(row, tuple(options.values())), outcome["answer"])
        tally["with options"] += 1
        tally["by name"] += by_name == options.get(prediction or "")
    return prediction is not None


def query(row: dict[str, Any], labels: tuple[str, ...]) -> Query:
    """The row as a query with labels."""
    return Query(query_id=row["query_id"], text=row["text"], labels=labels, task=row["task"])


def report(counts: dict[str, Counter[str]], unread: Counter[str]) -> None:
    """Print one line a task, and what was not read."""
    total: Counter[str] = sum(counts.values(), Counter())
    print(f"{'task':24} {'answers':>8} {'read':>8} {'agree':>8} {'by name':>8}")
    for task, part in [*sorted(counts.items()), ("all", total)]:
        shares = [("read", "answers"), ("agree", "comparable"), ("by name", "with options")]
        shown = (f"{part[a] / part[b]:8.2%}" if part[b] else f"{'-':>8}" for a, b in shares)
        print(f"{task:24} {part['answers']:8}", *shown)
    print(f"not read: {total['answers'] - total['read']}; the most frequent:")
    for answer, times in unread.most_common(8):
        print(f"  {times} x {answer!r}")
    print(f"{total['µs'] / total['answers']:.1f} µs an answer, construction of the query included")


if __name__ == "__main__":
    main()
