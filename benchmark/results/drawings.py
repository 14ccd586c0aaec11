"""Curves, values with their errors and rows of images, drawn without a display."""

import base64
import io
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from benchmark.errors import shown

Curves = Mapping[str, Mapping[float, float]]
"""Values by abscissa, by label."""

SIGMA, SHARE = "noise level, sigma / alpha", "noise level, share of all"
"""Names of abscissas."""
NAME = 0.2
"""Height of a label in a legend, in inches."""
TICKS = 6
"""Most values of an abscissa that each have a tick."""
LONGEST = 3000
"""Most pixels of a side of a picture inside a page."""
PANELS = 3
"""Panels of a figure side by side."""


class Strip(NamedTuple):
    """A row of images.

    Attributes:
        label: Text beside it.
        images: ``(N, H, W, C)`` with values of 0 to 1.
        below: Texts below the images; none if empty.
    """

    label: str
    images: np.ndarray
    below: Sequence[str] = ()


class Spread(NamedTuple):
    """A value and its standard error over seeds, 0 where there is one seed, in a group such as a kind of estimate."""

    label: str
    group: str
    mean: float
    error: float


def curves_figure(
    panels: Mapping[str, Curves],
    across: str,
    *,
    log: Collection[str] = (),
    low: float | None = None,
    order: Sequence[str] = (),
) -> Any:
    """Lines that differ in colour or dashes, the same in all panels, and their labels beside them.

    Args:
        panels: Lines by the name of their ordinate.
        across: Name of the abscissa.
        log: Ordinates that are logarithmic, if their values are above 0 and far apart.
        low: Lower end of the ordinates, whose upper end is then that of fractions.
        order: Cells, of which each has its own look in all figures; the first word of a label names one.
    """
    from matplotlib.figure import Figure

    style = _styles(list(dict.fromkeys(label for curves in panels.values() for label in curves)), order)
    wide = min(len(panels), PANELS)
    size = (8, 4.8) if wide == 1 else (3.3 * wide, 2.7 * math.ceil(len(panels) / PANELS))
    beside = math.ceil(len(style) * NAME / (size[1] - 0.4))
    figure = Figure(figsize=(size[0] + 2 * beside, size[1]), dpi=120, layout="constrained")
    places = figure.subplots(math.ceil(len(panels) / PANELS), wide, squeeze=False).ravel()
    for axes, (of, curves) in zip(places, panels.items(), strict=False):
        for label, points in curves.items():
            line, color = style[label]
            axes.plot([*points], [*points.values()], color=color, linestyle=line, marker=".", linewidth=1.6)
        _scale_abscissa(axes, sorted({x for points in curves.values() for x in points}))
        axes.set(xlabel=across, ylabel=of)
        values = [value for points in curves.values() for value in points.values()]
        if of in log and max(values) > 3 * min(values) > 0:
            axes.set_yscale("log")
        if low is not None:
            axes.set_ylim(low, 1.02)
        axes.grid(alpha=0.25)
    for axes in places[len(panels) :]:
        axes.remove()
    lines = [places[0].plot([], [], color=c, linestyle=line, marker=".")[0] for line, c in style.values()]
    names = [plain(label) for label in style]
    figure.legend(lines, names, loc="outside right upper", ncols=beside, fontsize=9, frameon=False)
    return figure


def _styles(labels: Sequence[str], order: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Dashes and colour of each label: those of the cell that it names, or the next free ones."""
    import matplotlib  # without pyplot, whose import takes longer than the figure

    looks = list(itertools.product(("-", "--", ":", "-."), matplotlib.colormaps["tab20"].colors))
    dark_first = [look for start in (0, 1) for look in looks[start::2]]
    places = {cell: place for place, cell in enumerate(order)}
    found: dict[str, tuple[str, Any]] = {}
    for label in labels:
        wanted = places.get(label.partition(" ")[0], len(found))
        own = dark_first[wanted % len(looks) :] + dark_first
        found[label] = next((look for look in own if look not in found.values()), own[0])
    return found


def _scale_abscissa(axes: Any, xs: Sequence[float]) -> None:
    """Make the abscissa logarithmic where its values are far apart, from 1 on if there is a 0."""
    if xs[-1] > 20 * max(xs[0], 1e-12) and xs[0] >= 0:
        axes.set_xscale("log") if xs[0] > 0 else axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    if len(xs) <= TICKS and all(float(f"{x:.3g}") == x for x in xs):  # such as guidance scales
        axes.set_xticks(xs, [f"{x:g}" for x in xs])


def spreads_figure(spreads: Sequence[Spread], across: str) -> Any:
    """A line for each label, with a marker for each group's value and its standard error."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(spread.label for spread in spreads))
    places = {label: len(labels) - place for place, label in enumerate(labels)}
    figure = Figure(figsize=(8, 1.2 + 0.24 * len(labels)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    groups = dict.fromkeys(spread.group for spread in spreads)
    for group, marker in zip(groups, itertools.cycle("os^Dvx"), strict=False):
        own = [spread for spread in spreads if spread.group == group]
        axes.errorbar(
            [s.mean for s in own], [places[s.label] for s in own], xerr=[s.error for s in own],
            fmt=marker, markersize=5, capsize=2, label=plain(group),
        )  # fmt: skip
    axes.set_yticks([*places.values()], [plain(label) for label in labels])
    axes.tick_params(axis="y", labelsize=9)
    axes.set(xlabel=across, ylim=(0.4, len(labels) + 0.6))
    axes.grid(alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9, frameon=False)
    return figure


def strips_figure(strips: Sequence[Strip]) -> Any:
    """Rows of images below one another, each with its label; smaller images stand at the top left of their places."""
    from matplotlib.figure import Figure

    columns, height, width = (max(strip.images.shape[axis] for strip in strips) for axis in range(3))
    tile = max(0.45, min(1.2, 9 / columns))
    text = math.ceil(0.2 / tile * height)  # a line of text below a row, in pixels of its images
    tops = [0, *itertools.accumulate(height + (text if strip.below else 1) for strip in strips)]
    canvas = np.ones((tops[-1], columns * (width + 1), 3))
    figure = Figure(figsize=(columns * tile + 3, tops[-1] / (height + 1) * tile + 0.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for top, (_, images, below) in zip(tops, strips, strict=False):
        for column, image in enumerate(images):
            left = column * (width + 1)
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = np.clip(image, 0, 1)
        for column, word in enumerate(below[: len(images)]):
            place = column * (width + 1) + width / 2 - 0.5, top + height + text / 2 - 0.5
            axes.text(*place, plain(word, 14), ha="center", va="center", fontsize=7)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks([top + height / 2 for top in tops[:-1]], [plain(strip.label) for strip in strips])
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    return figure


def plain(label: str, width: int = 60) -> str:
    """A label on one line, in which no pair of signs starts mathematics."""
    return shown(label, width).replace("$", r"\$")


def svg(figure: Any, salt: str) -> Markup:
    """A figure as an inline SVG whose text is text; the same for equal salts and figures."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return Markup(out.getvalue()[out.getvalue().index("<svg") :])


def png(figure: Any) -> str:
    """A figure as a PNG of at most 256 colours and ``LONGEST`` pixels a side, in a data address."""
    from PIL import Image

    dpi = min(120, LONGEST / max(figure.get_size_inches()))
    drawn, out = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(256).save(out, format="PNG", optimize=True)
    return address(out)


def address(image: io.BytesIO) -> str:
    """Data address of a PNG's bytes."""
    return "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()
