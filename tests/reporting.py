"""Decisions about a few tokens, some of them hostile to a page, and the report that they make."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from vocabkit.vocab.report import write_html_report
from vocabkit.vocab.rules import Decision

HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    "]]>&lt;\\u003c\u2028\u2029\x00\r\n\t \x7f",
    "'\"`${window.hacked = 1}",
    "$data {{data}} $title",
]


def decision(token_id: int, text: str, count: int, keep_it: bool, **changes: Any) -> Decision:
    reason = "English word in use" if keep_it else "rare"
    return Decision(token_id, text, count, keep_it, **{"reason": reason, "category": "english", **changes})


def small() -> list[Decision]:
    """Five tokens, 100 occurrences; in another order than that of the ids."""
    return [
        decision(2, "字", 10, False, reason="script Han", category="others"),
        decision(0, " the", 60, True),
        decision(1, "th", 5, False),
        decision(4, " ti<0xE1>", 0, False, category="others"),
        decision(3, "việc", 25, True, reason="Vietnamese syllable", category="vietnamese"),
    ]


SMALL_CLOSED = {0, 1, 3}


def write(path: Path, decisions: Sequence[Decision], closed: set[int], **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "summary": {},
        "title": "model",
        "command": "python3 build_vocab.py",
        **changes,
    }
    write_html_report(path, decisions=decisions, closed=closed, **arguments)
    return path.read_text(encoding="utf-8")


def hostile() -> list[Decision]:
    return [
        decision(token_id, text, 50 - token_id, token_id % 2 == 0, reason=text, category=text)
        for token_id, text in enumerate(HOSTILE)
    ]


class Page(HTMLParser):
    """The script elements of a page, each as (attributes, text), and the text of its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self.tags: list[str] = []
        self.title = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.lasttag == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.lasttag == "title":
            self.title += data

    @property
    def data(self) -> Any:
        ((_, text),) = [script for script in self.scripts if script[0].get("type") == "application/json"]
        return json.loads(text)
