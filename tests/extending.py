"""Words and merges for tiny checkpoints that are extended, and what their tensors hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny import SENTENCES

from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import QWEN2, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.words.merges import SplitCounter, Splits

WORDS = ["hôm▁nay", "thanh▁điệu", "Tiếng▁Việt", "hợp▁sức▁cần"]


TEXTS = [
    "Trung tâm giao cho thuyền trưởng; trong gian hàng, giao thông trung bình.",
    "Thuyết trình: gian nan, nghiêng ngả, khuya khoắt, nguyễn huệ (thuyền) trung.",
    *SENTENCES[:3],
]


def merges_for(folder: Path, count: int) -> list[bpe.Merge]:
    """What build_vi_words.py would choose for these few texts."""
    tokenizer = read_tokenizer_json(folder)
    counter = SplitCounter(QWEN2)
    counter.add(TEXTS)
    splits = Splits(counter.take(), tokenizer, load_encoder(folder), QWEN2)
    found = []
    while len(found) < count and (best := splits.best()):
        splits.merge(best[1])
        found.append((splits.names[best[1][0]], splits.names[best[1][1]]))
    return found


def write_list(path: Path, merges: Sequence[bpe.Merge], words: Sequence[str] = WORDS) -> Path:
    rows: list[dict[str, Any]] = [{"syllable": "?", "merge": list(merge)} for merge in merges]
    for at, word in enumerate(words):
        rows.insert(2 * at, {"word": word})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path
