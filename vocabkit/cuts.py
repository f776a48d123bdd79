"""Where a text may be cut so that its pieces, encoded one by one, give the tokens of the whole.

Reads tokenizer.json; writes nothing. counts.py rests on this: no token crosses a cut, and none depends on
what lies beyond one. For the tokenizers that find_cuts() knows, two kinds of place are such cuts:

    before a space that follows a character other than white space    "tôi đi" → "tôi", " đi"
    after the last line end of a stretch of white space                "tôi\\n\\n  đi" → "tôi\\n\\n", "  đi"

Byte-level BPE (GPT-2, Qwen, Llama 3) first splits text by a regular expression. None of its alternatives
matches white space after something else, except line ends after punctuation; and what looks ahead,
`\\s+(?!\\S)`, looks from white space one character on. So the match before such a space ends there, whatever
follows, and the next match starts there, whatever came before. With `\\s*[\\r\\n]+` (not in GPT-2) the same
holds after the last line end of such a stretch: the match goes up to it, and the next begins there.
Whole-text BPE (Gemma): merges may cross anything that a token can hold. A space becomes ▁; where no token
holds a ▁ behind another character, no merge crosses the first cut. Where the line end is an added token, it
is taken out before merges are looked for, so none crosses the second.
Unigram (T5, mT5) splits at spaces itself and reads a line end as a space. What its normalizer makes into
white space or nothing is treated as white space here.

For any other tokenizer no cut is known: its texts are encoded whole.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabkit.tokenizer_json import BYTE_FALLBACK_BPE, BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LINE_PATTERNS = {QWEN2, LLAMA3}  # those with \s*[\r\n]+, after which a line end is a cut

# Stand-ins while a text is split at its spaces: a chunk without the space before it, a space that is no cut,
# the end of a document. A document that holds one of them is encoded whole.
NO_SPACE, SPACE, END = "\x01", "\x02", "\x04"
# White space that the fast way does not tell apart: Python's own (a superset of Unicode's), without the four
# that it does.
OTHER_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and char not in " \n\t\r")
NOT_THE_LAST = re.compile(f"\n {NO_SPACE}([ {SPACE}\t]*)(?=[\r\n])")  # a line end before another one


@dataclass(frozen=True)
class Cuts:
    """Where a tokenizer's texts may be cut.

    lines: after line ends too. words: the expression that splits chunks further, None where none does.
    whole: matches what sends a document the slow way.
    """

    lines: bool
    words: str | None
    whole: re.Pattern[str]


@dataclass(frozen=True)
class Recipe:
    """What counting needs of a tokenizer beside its file: little enough to hand to every worker."""

    folder: Path  # where tokenizer.json is
    ids: int  # highest id + 1
    cuts: Cuts | None
    added_starts: str  # the first characters of added tokens


def read_recipe(folder: Path) -> Recipe:
    """Read FOLDER/tokenizer.json and find out how its texts may be cut; UserError if it is not supported."""
    from vocabkit.tokenizer_json import read_tokenizer_json
    from vocabkit.verify import load_encoder

    tokenizer = read_tokenizer_json(folder)
    return Recipe(
        folder,
        max(tokenizer.tokens) + 1,
        find_cuts(tokenizer, load_encoder(folder)),
        "".join(sorted({token["content"][0] for token in tokenizer.data["added_tokens"]})),
    )


def find_cuts(tokenizer: TokenizerJson, encoder: Any) -> Cuts | None:
    """Return where texts may be cut for this tokenizer, None if no cut is known to be exact.

    encoder: the same tokenizer as a tokenizers.Tokenizer, asked what its normalizer does to characters.
    """
    if not all(_is_cuttable(token, encoder) for token in tokenizer.data["added_tokens"]):
        return None
    normalizer, splitter = tokenizer.data.get("normalizer"), tokenizer.data.get("pre_tokenizer")
    marks = NO_SPACE + SPACE + END
    if tokenizer.family == BYTE_LEVEL_BPE and normalizer in (None, {"type": "NFC"}):
        pattern = splitting_pattern(splitter)
        if pattern is not None:
            return Cuts(pattern in LINE_PATTERNS, pattern, any_of(marks))
    if tokenizer.family == BYTE_FALLBACK_BPE and not tokenizer.data["model"].get("ignore_merges"):
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        if normalizer == spaces and (splitter is None or _splits_spaces_only(splitter)):
            if not any("▁" in token.lstrip("▁") for token in tokenizer.vocab):
                lines = any(
                    token["content"] == "\n" and not token["normalized"]
                    for token in tokenizer.data["added_tokens"]
                )
                return Cuts(lines, None, any_of(marks + "▁"))
    # An added token that is looked for after normalizing leaves the white space before it, which at the end
    # of a chunk would be stripped.
    normalized = any(token["normalized"] for token in tokenizer.data["added_tokens"])
    if tokenizer.family == UNIGRAM and not normalized and _splits_words(normalizer, splitter):
        return Cuts(_is_space("\n", encoder), None, any_of(marks + "▁" + _vanishing(encoder)))
    return None


def _is_cuttable(token: Mapping[str, Any], encoder: Any) -> bool:
    """Whether an added token stays the same where texts are cut: it holds no white space, or nothing else,
    takes none from its neighbours, and is found in a text as it is written.
    """
    content = token["content"]
    if token["lstrip"] or token["rstrip"] or token["single_word"]:
        return False
    if not content.strip():
        return len(set(content)) == 1
    if any(char.isspace() for char in content):
        return False
    if not token["normalized"]:
        return True
    normalizer = encoder.normalizer
    return "▁" not in content and (normalizer is None or normalizer.normalize_str(content) == content)


def splitting_pattern(splitter: Any) -> str | None:
    """The known expression by which a byte-level pre_tokenizer splits, None for any other."""
    match splitter:
        case {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
            ],
        } if pattern in (GPT2, QWEN2, LLAMA3):
            return pattern
    return None


def _splits_spaces_only(splitter: Any) -> bool:
    """Whether a pre_tokenizer splits at " " alone; behind a normalizer that leaves none, it does nothing."""
    return splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "}


def _splits_words(normalizer: Any, splitter: Any) -> bool:
    """Whether Unigram sees each word by itself, however many spaces surround it, as in T5 and mT5."""
    words = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    match normalizer, splitter:
        case {"type": "Sequence", "normalizers": [table, strip, several]}, _:
            return (
                splitter == words
                and table["type"] == "Precompiled"
                and strip == {"type": "Strip", "strip_left": False, "strip_right": True}
                and several == {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
            )
        case {"type": "Precompiled"}, {"type": "Sequence", "pretokenizers": pretokenizers}:
            return pretokenizers == [{"type": "WhitespaceSplit"}, words]
    return False


def _is_space(char: str, encoder: Any) -> bool:
    """Whether the normalizer makes a space of this character between others."""
    return encoder.normalizer is not None and encoder.normalizer.normalize_str(f"a{char}b") == "a b"


def _vanishing(encoder: Any) -> str:
    """Return what the normalizer turns into nothing, or into something that ends with a space, and the white
    space that it leaves or takes away at the end of a text.
    """
    if encoder.normalizer is None:
        return ""
    normalize = encoder.normalizer.normalize_str
    found = [char for char in OTHER_SPACE if not _is_space(char, encoder)]
    for at in range(0, 0x110000, 256):
        block = "".join(map(chr, range(at, at + 256))) if not 0xD800 <= at < 0xE000 else ""
        if normalize(block) != block:  # most blocks pass unchanged
            for char in block:
                if not char.isspace() and (not (normal := normalize(char)) or normal[-1] in " ▁"):
                    found.append(char)
    return "".join(found)


def any_of(characters: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(characters)}]")


def chunks(texts: Sequence[str], *, lines: bool) -> list[str]:
    """Return the chunks of texts that hold no stand-in; those at spaces lack that space, NO_SPACE marks the
    others.

    Works on all texts at once with str.replace and str.split, which cost nothing per character: this is what
    the speed comes from. `chunk_text` undoes the stand-ins.

    >>> [chunk_text(chunk) for chunk in chunks(["a  b\\n\\nc d"], lines=True)]
    ['a', '  b\\n\\n', 'c', ' d']
    >>> [chunk_text(chunk) for chunk in chunks(["a\\n \\n  b"], lines=True)]  # "" : nothing
    ['a\\n \\n', '', '  b']
    """
    text = END.join(texts)
    if "  " in text:  # only the first space of several is a cut
        text = text.replace("  ", " " + SPACE)
        while SPACE + " " in text:
            text = text.replace(SPACE + " ", SPACE + SPACE)
    for char in "\t\r":
        if char in text:  # white space before a space: no cut
            text = text.replace(char + " ", char + SPACE)
    cut = " " + NO_SPACE
    if lines:
        text = text.replace("\n", "\n" + cut)
        blank = "\n" + cut + "\n"
        while blank in text:
            text = text.replace(blank, "\n\n")
        if NOT_THE_LAST.search(text):
            text = NOT_THE_LAST.sub(lambda found: "\n" + found[1].replace(" ", SPACE), text)
    else:
        text = text.replace("\n ", "\n" + SPACE)
    return (NO_SPACE + text.replace(END, cut)).split(" ")


def chunk_text(chunk: str) -> str:
    """Return the text that a chunk stands for."""
    if SPACE in chunk:
        chunk = chunk.replace(SPACE, " ")
    return chunk[1:] if chunk[:1] == NO_SPACE else " " + chunk


def careful_pattern(lines: bool) -> re.Pattern[str]:
    """The same cuts as an expression, for documents with other white space than space, tab and line end."""
    if lines:
        return re.compile(r"\s*\S+(?:[^\S ]\s*(?<!\n)\S+)*(?:[^\S ]\s*)?|\s+")
    return re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*)?|\s+")
