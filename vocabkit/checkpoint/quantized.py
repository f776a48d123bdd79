"""Whether a folder's weights are quantized, and how: trimming cuts plain tables out of such folders, too, but
nothing can be trained in them.

Reads config.json, the settings of older tools and the headers of the weights; writes nothing.
"""

from vocabkit.checkpoint.shards import Checkpoint
from vocabkit.files import read_json_object

PLAIN = ("F64", "F32", "F16", "BF16")
_OLD_SETTINGS = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}


def quantization(checkpoint: Checkpoint) -> str | None:
    """Return how a folder's weights are quantized ("fp8", "gptq", …), None for plain numbers.

    What config.json says, else what the files beside it say, else what the matrices are.
    """
    config = read_json_object(checkpoint.folder / "config.json")
    for part in (config, config.get("text_config")):
        settings = part.get("quantization_config") if isinstance(part, dict) else None
        if isinstance(settings, dict):
            bits = settings.get("load_in_4bit") or settings.get("load_in_8bit")
            return str(settings.get("quant_method") or ("bitsandbytes" if bits else "quantization_config"))
    for name, method in _OLD_SETTINGS.items():
        if (checkpoint.folder / name).is_file():
            return method
    for name, tensor in checkpoint.tensors.items():
        if name.endswith("weight") and len(tensor.shape) > 1 and tensor.dtype not in PLAIN:
            return f"{name} is {tensor.dtype}"
    return None
