"""The pictures of the page of results: accuracy against cost, by shots, by items; norms by layer.

Knows the printed object and matplotlib; draws only what was measured.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tools.results.page import M2IV, main_size

_SHOTS: Final = "icl_"
_OWN: Final = "#d9822b"
_OTHER: Final = "#4f86c6"
# Equal results give equal files.
_SETTINGS: Final[Any] = {"svg.hashsalt": "results", "svg.fonttype": "none"}
# Fewer points are no curve.
_FEWEST_SHOTS: Final = 3
_FEWEST_SIZES: Final = 2


def draw(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Writes the pictures that the results have figures for.

    Args:
        report: What `vlibrary evaluate --suite NAME --json` printed.
        folder: Where they go; made where it is missing.

    Returns:
        Names of the files, in their order on the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[str] = []
    plots: dict[str, Callable[[Axes, Mapping[str, Any]], bool]] = {
        "cost": _cost,
        "shots": _shots,
        "items": _items,
        "norms": _norms,
    }
    for name, plot in plots.items():
        with rc_context(_SETTINGS):
            figure = Figure(figsize=(8, 4.5), layout="constrained")
            FigureCanvasSVG(figure)
            if not plot(figure.subplots(), report):
                continue
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            drawn.append(f"{name}.svg")
    return drawn


def _methods(report: Mapping[str, Any], size: str | None = None) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report["items"][size or main_size(report)]["methods"]
    return found


def _cost(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Accuracy against the time of a question; how much is kept stands beside each name."""
    methods = _methods(report)
    if all(row["kind"] == "shift" for row in methods.values()):
        # These cost the same: what differs is what else the machine did.
        return False
    for name, row in methods.items():
        color = _OWN if name == M2IV else _OTHER
        low, high = row["mean"] - row["low"], row["high"] - row["mean"]
        axes.errorbar(
            max(row["ms_per_query"], 0.1),
            100 * row["mean"],
            yerr=[[100 * low], [100 * high]],
            fmt="o",
            color=color,
        )
        kept = f"{name} ({row['parameters']:,.0f})" if row["parameters"] else name
        axes.annotate(
            kept,
            (max(row["ms_per_query"], 0.1), 100 * row["mean"]),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_xscale("log")
    axes.set_xlabel("ms a question in batches (in brackets: numbers kept)")
    axes.set_ylabel("accuracy (%), with 95 % interval")
    return True


def _shots(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Accuracy of random demonstrations by their number, beside M2IV without any."""
    methods = _methods(report)
    most = int(main_size(report))
    numbered = {
        int(count): row
        for name, row in methods.items()
        # Of fewer items than that all were shown.
        if (count := name.removeprefix(_SHOTS)).isdecimal() and int(count) <= most
    }
    if "zero_shot" in methods:
        numbered[0] = methods["zero_shot"]
    if len(numbered) < _FEWEST_SHOTS:
        return False
    counts = sorted(numbered)
    axes.plot(
        [str(count) for count in counts],
        [100 * numbered[count]["mean"] for count in counts],
        "o-",
        color=_OTHER,
        label="in-context learning",
    )
    if M2IV in methods:
        axes.axhline(100 * methods[M2IV]["mean"], color=_OWN, label="M2IV, no demonstrations")
    axes.set_xlabel("random demonstrations in the prompt")
    axes.set_ylabel("accuracy (%)")
    axes.legend()
    return True


def _items(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Accuracy by the number of labelled items, of methods measured with each."""
    sizes = sorted(report["items"], key=int)
    if len(sizes) < _FEWEST_SIZES:
        return False
    tables = [_methods(report, size) for size in sizes]
    for name in tables[0]:
        if all(name in table for table in tables):
            axes.plot(sizes, [100 * table[name]["mean"] for table in tables], "o-", label=name)
    axes.set_xlabel("labelled items")
    axes.set_ylabel("accuracy (%)")
    axes.legend(fontsize=7)
    return True


def _norms(axes: Axes, report: Mapping[str, Any]) -> bool:
    """How long M2IV's shift is in each layer, on average over tasks and seeds."""
    norms = _methods(report).get(M2IV, {}).get("norms")
    if not norms:
        return False
    for branch, lengths in norms.items():
        axes.plot(range(1, 1 + len(lengths)), lengths, "o-", label=branch)
    axes.set_xlabel("decoder layer")
    axes.set_ylabel("length of the shift")
    axes.legend()
    return True
