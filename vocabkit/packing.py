"""Several texts in one row: a first packer."""

from typing import Any


def pack(dataset: Any, *, how: str, max_length: int, seed: int, tokenizer: Any = None) -> Any:
    import datasets

    rows: list[dict[str, Any]] = []
    for row in dataset:
        ids, labels = row["input_ids"], [-100, *row["labels"][1:]]
        if how == "none" or not rows or len(rows[-1]["input_ids"]) + len(ids) > max_length:
            rows.append({"input_ids": [], "labels": [], "position_ids": [], "seq_lengths": []})
        rows[-1]["input_ids"] += ids
        rows[-1]["labels"] += labels
        rows[-1]["position_ids"] += range(len(ids))
        rows[-1]["seq_lengths"].append(len(ids))
    return datasets.Dataset.from_list(rows)


class Collator:
    def __init__(self, pad_token_id: int, cross_document: bool) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        longest = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": self.pad_token_id, "labels": -100, "position_ids": 0}
        return {
            name: torch.tensor([list(row[name]) + [value] * (longest - len(row[name])) for row in batch])
            for name, value in fill.items()
        }
