"""A model by folder or by hub id: what is not here is downloaded, with progress.

Downloads into the hub's cache (~/.cache/huggingface, or $HF_HOME), never into the folder of the program.
"""

import re
from pathlib import Path

from vocabkit.errors import UserError, one_line
from vocabkit.files import regular

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Everything a checkpoint needs; other weight formats would only cost time and disk.
WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "*.md"]


def is_hub_id(name: str) -> bool:
    """Say whether name could be OWNER/MODEL of the hub, and is not a path here.

    >>> is_hub_id("Qwen/Qwen2.5-7B-Instruct"), is_hub_id("../Qwen2.5-7B-Instruct")
    (True, False)
    """
    return HUB_ID.fullmatch(name) is not None and not Path(name).parent.exists()


def local_folder(name: str) -> Path:
    """Return the folder of a model, downloading it first if name is a hub id; UserError if there is no such
    model, or if the folder holds a FIFO or a device.
    """
    if not is_hub_id(name):
        return _without_fifos(Path(name))
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED, ignore_patterns=["*/*"]))
    except Exception as error:  # the library raises many kinds, all of which mean: no model
        why = f"{type(error).__name__}: {one_line(error)[:160]}"
        raise UserError(
            f"{name} is no folder here and could not be downloaded ({why}); check the name and the network, "
            "or for a gated model run: hf auth login"
        ) from None


def _without_fifos(folder: Path) -> Path:
    for path in folder.iterdir() if folder.is_dir() else ():
        regular(path)  # the libraries would wait for a FIFO
    return folder


def model_folder(path: str | Path) -> Path:
    """Return path as a Path; UserError when it is no folder, or holds a FIFO or a device.

    Here: a typo is told before torch loads.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"{path}: no such folder; give one with config.json, tokenizer.json and weights, for instance "
            "from `hf download Qwen/Qwen2.5-1.5B-Instruct --local-dir Qwen2.5-1.5B-Instruct`"
        )
    return _without_fifos(folder)
