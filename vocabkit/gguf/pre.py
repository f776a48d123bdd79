"""How a byte-level tokenizer splits text first, as the names that llama.cpp has for it: tokenizer.ggml.pre.

Reads and writes nothing. Source: the list of names and their expressions in llama-vocab.cpp of
ggml-org/llama.cpp. Left out here: tekken and gpt-4o, whose expressions in llama.cpp tell capital from small
letters among A to Z alone ("HỌC" is cut into "HỌ" and "C"; tokenizer.json's own leave it whole); afmoe and
kimi-k2, which llama.cpp splits by code of its own instead of an expression.
"""

import re
from collections.abc import Mapping
from typing import Any

from vocabkit.tokenizer.encoder import GPT2, LLAMA3, QWEN2
from vocabkit.tokenizer.tokenizer_json import leaves

DIGIT, DIGITS, THREE_DIGITS = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = QWEN2.replace(r"?\p{L}+|", r"?[\p{L}\p{M}]+|").replace(r"\s\p{L}\p{N}", r"\s\p{L}\p{M}\p{N}")
_SEED = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1}|").replace(
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|", r" ?[^\s\p{L}\p{N}\r\n]+|"
)
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_EXAONE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)

# What text is split by, one expression after the other → the name, with ignore_merges off and on
PRE: dict[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((QWEN2,), False): "qwen2",
    ((LLAMA3,), True): "llama-bpe",
    ((LLAMA3,), False): "dbrx",
    ((DIGIT, GPT2), False): "smollm",
    ((_QWEN35,), False): "qwen35",
    ((_SEED,), False): "seed-coder",
    ((_BAILING,), False): "bailingmoe",
    ((_EXAONE,), False): "exaone-moe",
    ((THREE_DIGITS, _CJK, _DEEPSEEK3), False): "deepseek-v3",
    (("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", DIGIT), False): "deepseek-coder",
    ((_BLOOM,), False): "bloom",
    ((_BLOOM, DIGIT), False): "viking",
    ((DIGITS, r"(?=(\d{3})+(?!\d))"), False): "superbpe",
}


def splits_by(pre_tokenizer: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """Return the expressions that a byte-level pre_tokenizer splits by, one after the other.

    None for one that does something else, such as beginning every text with a space.

    >>> splits_by({"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}) == (GPT2,)
    True
    """
    found: list[str] = []
    for part in leaves(pre_tokenizer):
        match part:
            case {"type": "ByteLevel", "add_prefix_space": False}:
                found += [GPT2] if part.get("use_regex", True) else []
            case {"type": "Digits", "individual_digits": one_by_one}:
                found.append(DIGIT if one_by_one else DIGITS)
            case {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}:
                found.append(_expression(pattern))
            # How tiktoken's expressions are often converted: these match all text, so nothing is removed.
            case {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": True}:
                if not _expression(pattern).endswith(r"|\s+"):
                    return None
                found.append(_expression(pattern))
            case _:
                return None
    return tuple(found)


def _expression(pattern: Mapping[str, str]) -> str:
    return pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])


def pre_name(data: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name for how a byte-level tokenizer.json splits text; None if it has none."""
    splits = splits_by(data.get("pre_tokenizer"))
    return PRE.get((splits, bool(data["model"].get("ignore_merges")))) if splits else None
