"""vocabkit/checkpoint/numbers.py: stored rows as float32 and back, as torch does it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vocabkit.checkpoint.numbers import as_stored, rows_as_float32, to_bfloat16
from vocabkit.checkpoint.shards import Tensor, read_checkpoint
from vocabkit.errors import UserError


@pytest.mark.parametrize(
    "name, dtype", [("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)]
)
def test_rows_as_float32(tmp_path, name, dtype):
    values = torch.randn(96, 6).to(dtype)
    save_file({"embed.weight": values}, tmp_path / "model.safetensors")
    tensor = read_checkpoint(tmp_path).tensors["embed.weight"]
    assert tensor.dtype == name
    found = rows_as_float32(tensor, [1, 4, 90])
    assert np.array_equal(found, values[[1, 4, 90]].float().numpy())
    assert rows_as_float32(tensor, []).shape[0] == 0
    wrong = Tensor("x", tmp_path / "model.safetensors", "I8", (4, 2), 0, 8)
    with pytest.raises(UserError, match="x is I8, expected BF16, F16, F32 or F64"):
        rows_as_float32(wrong, [0])


def test_bfloat16_is_rounded_to_nearest_even_as_torch_does():
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, 200_000, dtype=np.uint32)
    halves = (np.arange(2**12, dtype=np.uint32) << 16 | 0x8000) + 0x3F000000  # exactly between two
    values = np.concatenate([bits, halves, halves - 1, halves + 1]).view(np.float32)
    values = values[~np.isnan(values)]
    wanted = torch.from_numpy(values.copy()).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert (to_bfloat16(values) == wanted).all()
    named = np.array([1.0, -0.0, 3.3895314e38, np.inf, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert [hex(v) for v in to_bfloat16(named)] == [
        "0x3f80",
        "0x8000",
        "0x7f7f",
        "0x7f80",
        "0x3f80",
        "0x3f82",
    ]
    assert (to_bfloat16(np.array([np.nan], np.float32)) & 0x7F80 == 0x7F80).all()
    assert to_bfloat16(np.array([[np.nan]], np.float32)).shape == (1, 1)


def test_a_value_that_does_not_fit_is_an_error():
    for dtype, values in (("F16", [[1e6]]), ("BF16", [[np.inf]]), ("F32", [[np.nan]])):
        tensor = Tensor("embed", Path("model.safetensors"), dtype, (1, 1), 0, 4 if dtype == "F32" else 2)
        with pytest.raises(UserError, match=f"a new row of embed does not fit into {dtype}"):
            as_stored(np.array(values, np.float32), tensor)
    with pytest.raises(UserError, match="is F8_E4M3, expected"):
        as_stored(np.ones((1, 1), np.float32), Tensor("embed", Path("x"), "F8_E4M3", (1, 1), 0, 1))
    tensor = Tensor("embed", Path("x"), "F64", (2, 2), 0, 32)
    assert as_stored(np.eye(2, dtype=np.float32), tensor).view(np.float64).tolist() == [[1, 0], [0, 1]]
