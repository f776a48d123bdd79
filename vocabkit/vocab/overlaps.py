"""Added tokens that overlap: texts in which runtimes find different ones. Reads and writes nothing.

Where " trở thành" and " thành lập" are both tokens, " trở thành lập" is cut by the one that begins first
(transformers) or by the longer one (llama.cpp). A token inside another is cut alike by both.
"""

from collections.abc import Iterable


def overlaps(contents: Iterable[str]) -> list[str]:
    """Return for each two tokens of which one ends as the other begins a text that they share.

    >>> overlaps([" trở thành", " thành lập", " lập"])
    [' trở thành lập']
    """
    known = list(dict.fromkeys(contents))
    begins: dict[str, list[str]] = {}
    for content in known:
        for size in range(1, len(content)):
            begins.setdefault(content[:size], []).append(content)
    return [
        first + second[len(first) - at :]
        for first in known
        for at in range(1, len(first))
        for second in begins.get(first[at:], ())
        if second != first
    ]
