"""The look that all pictures of the toolkit share: colours, and a figure that is written as a PNG."""

import io
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.outputs import new_file

# Okabe and Ito's colours, which people of any colour vision tell apart
BLUE, RED, GREEN, GREY, PURPLE, GOLD = "#0072B2", "#D55E00", "#009E73", "#8C8C8C", "#CC79A7", "#B07D00"


def new_figure(plot: Path) -> Any:
    """Return an empty figure; UserError, before any long work, if PLOT cannot be written."""
    if plot.suffix.lower() != ".png":
        raise UserError(f"--plot {plot} is no PNG; give a name that ends in .png")
    if plot.exists() or plot.is_symlink():
        raise UserError(f"{plot} already exists; choose another file with --plot, or remove it: rm {plot}")
    if not plot.parent.is_dir():
        raise UserError(f"{plot.parent} is not a folder; make it first: mkdir -p {plot.parent}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--plot needs matplotlib; install it: python3 -m pip install matplotlib") from None
    return FigureCanvasAgg(Figure(figsize=(15, 7.5))).figure


def write_figure(figure: Any, plot: Path) -> None:
    """Write a figure that new_figure() gave to PLOT, whole: it is drawn in memory first."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    with new_file(plot) as part:
        part.write_bytes(picture.getvalue())
    print(f"{plot}: written")
