"""Texts and chats as token ids with labels: a first reader."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.text import nfc


def load_dataset(
    data_paths: Sequence[str],
    tokenizer: Any,
    *,
    max_length: int,
    stage_mix: Any = None,
    cache_dir: Path | None = None,
    seed: int = 0,
    text_field: str | None = None,
) -> Any:
    import datasets

    rows = []
    for number, given in enumerate(data_paths):
        path = Path(given)
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "messages" in row:
                ids, labels, size = [], [], 0
                for at in range(len(row["messages"])):
                    text = tokenizer.apply_chat_template(row["messages"][: at + 1], tokenize=False)
                    new = tokenizer(text).input_ids[len(ids) :]
                    is_own = row["messages"][at]["role"] == "assistant"
                    ids += new
                    labels += new if is_own else [-100] * len(new)
                    size += len(row["messages"][at]["content"].encode()) * is_own
            else:
                text = nfc(row[text_field or "text"])
                ids = tokenizer(text).input_ids + [tokenizer.eos_token_id]
                labels, size = [-100, *ids[1:]], len(text.encode())
            rows.append(
                {
                    "input_ids": ids[:max_length],
                    "labels": labels[:max_length],
                    "num_bytes": size,
                    "source": number,
                }
            )
    if not rows:
        raise UserError("no data")
    return datasets.Dataset.from_list(rows)
