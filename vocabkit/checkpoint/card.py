"""The model card of a folder, README.md: what all cards share. Packages above say what was done to it."""

from pathlib import Path

from vocabkit.checkpoint.record import base_name

HEAD = """\
---
base_model: {base_name}
language: [en, vi]
tags: [{tags}]
---
# {name}

[Tiếng Việt](#tiếng-việt)"""

OPEN = """\
Open it like any checkpoint:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
```"""


def write_model_card(
    folder: Path, template: str, *, name: str, base_model: str, tags: str, **values: object
) -> None:
    """Write FOLDER/README.md: the template with {head}, {open} and the values in their places.

    name: of the folder; base_model: a folder or a hub id.
    """
    head = HEAD.format(base_name=base_name(base_model), tags=tags, name=name)
    card = template.format(head=head, open=OPEN.format(name=name), **values)
    (folder / "README.md").write_text(card, encoding="utf-8")
