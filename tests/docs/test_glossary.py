"""The words of the project: each is explained once, and the pages keep to them."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.helpers.repository import ROOT

WORDS = (
    *("spawn", "adopt", "exit", "returncode", "grace period", "stop", "terminate", "kill", "journal", "story"),
    *("cookie", "guardian", "rung", "escaped", "survivor", "detach", "record", "gap", "unkillable"),
    *(
        "ageing",
        "backfill",
        "reservation",
        "quantum",
        "demotion",
        "boost",
        "victim",
        "preemption",
        "slot",
        "fate",
        "tenant",
    ),
    *(
        "breaker",
        "half open",
        "permit",
        "probe",
        "slow call",
        "checkpoint",
        "generation",
        "outage",
        "stand in",
        "strategy",
    ),
    *("alert", "severity", "hysteresis", "rule", "sample", "trend", "leak", "hung", "heartbeat", "snapshot", "target"),
    *("worker", "lease", "waiter", "recycle", "prewarm", "template", "prefetch", "poisoned"),
)
TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^([a-z][a-z ]+)\n    \S", TEXT, flags=re.MULTILINE)


def test_every_term_stands_once_and_in_order() -> None:
    assert [term for term, count in Counter(TERMS).items() if count > 1] == []
    assert sorted(TERMS) == TERMS


@pytest.mark.parametrize("word", WORDS)
def test_the_word_is_explained(word: str) -> None:
    assert TERMS.count(word) == 1


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages == {page for page in pages if re.search(rf"^{page}$", contents, flags=re.MULTILINE)}


def test_every_test_named_among_the_features_exists() -> None:
    table = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    folder, missing = "", []
    for name in re.findall(r"`((?:tests/)?[\w/]+(?:\.py|/))`", table):
        folder = name.rpartition("/")[0] if "/" in name else folder
        path = name if "/" in name else f"{folder}/{name}"
        if not (ROOT / path).exists():
            missing.append(path)
    assert missing == []
