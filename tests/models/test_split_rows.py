"""vocabkit/models/split_rows.py: ranges and clamping of norms (rows of their own: train/test_loss.py)."""

import numpy as np
import torch

from vocabkit.models.split_rows import clamp_norms_, norm_range
from vocabkit.rows.formulas import with_clamped_norms


def test_norms_are_clamped_to_the_old_range():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [99.0, 0.0]])
    assert norm_range(weight, 3) == (2.0, 5.0)
    assert norm_range(torch.zeros(2, 2), 2) == (0.0, float("inf"))
    rows = torch.tensor([[30.0, 40.0], [0.1, 0.0], [1.1, 2.2], [0.0, 0.0]])
    inside = rows[2].clone()
    clamp_norms_(rows, 2.0, 5.0)
    assert torch.allclose(rows[:2], torch.tensor([[3.0, 4.0], [2.0, 0.0]]))
    assert torch.equal(rows[2], inside) and not rows[3].any()


def test_torch_and_numpy_clamp_alike():
    rows = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    rows *= np.linspace(0, 3, 500, dtype=np.float32)[:, None]
    theirs = with_clamped_norms(rows, smallest=2.0, largest=5.0)
    mine = torch.tensor(rows)
    clamp_norms_(mine, 2.0, 5.0)
    np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-5)
    norms = np.linalg.norm(rows, axis=1)
    for inside in ((norms > 2.001) & (norms < 4.999), norms == 0):
        assert inside.any() and (mine.numpy()[inside] == rows[inside]).all()
        assert (theirs[inside] == rows[inside]).all()
