"""The plot of a run: a panel a figure, a bar a gateway, the range of the rounds as a whisker."""

from pathlib import Path

import matplotlib as mpl
from benches.load import figures
from benches.load.figures import DIRECT, OURS, Figure, Samples
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

_PANELS = (
    figures.CHAT_RATE,
    figures.ADDED_P50,
    figures.CHUNK_CPU,
    figures.CHAT_CPU,
    figures.LARGE_RATE,
    figures.STREAM_RSS,
)
_OURS_COLOR = "#1f6f8b"
_PEER_COLOR = "#b8c4cc"


def _panel(axes: Axes, samples: Samples, figure: Figure) -> None:
    names = [
        name
        for name in samples.names()
        if name != DIRECT and samples.find(name, figure) is not None
    ]
    values = [samples.find(name, figure) or 0.0 for name in names]
    rounds = [samples.rounds(name, figure) for name in names]
    whiskers = [
        [value - min(each) for value, each in zip(values, rounds, strict=True)],
        [max(each) - value for value, each in zip(values, rounds, strict=True)],
    ]
    colors = [_OURS_COLOR if name == OURS else _PEER_COLOR for name in names]
    axes.barh(names, values, color=colors, xerr=whiskers, ecolor="#555555")
    axes.invert_yaxis()
    better = "more" if figure.is_better_high else "less"
    axes.set_title(f"{figure.title}, {figure.unit} ({better} is better)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlim(0, max((max(each) for each in rounds), default=1.0) * 1.2)
    for row, (value, each) in enumerate(zip(values, rounds, strict=True)):
        text = f"{value:,.{figure.digits}f}"
        axes.annotate(
            text, (max(each), row), (4, 0), textcoords="offset points", va="center", fontsize=8
        )


def draw(samples: Samples, path: Path) -> None:
    """Write the plot as SVG, its words as text so that the file stays small."""
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "penstock"
    canvas = Canvas(figsize=(11, 5.5), layout="constrained")
    panels = canvas.subplots(2, 3)
    for axes, figure in zip(panels.flat, _PANELS, strict=True):
        _panel(axes, samples, figure)
    canvas.savefig(path, metadata={"Date": None})
