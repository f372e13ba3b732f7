"""What studies cost, and what sharing spared them."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from gitdist.report.figures.style import INK, SMALL, new_axes, style_of

_EPOCHS = {"trained_epochs": "trained", "shared_epochs": "taken over"}
_SECONDS = {
    "training_s": "training",
    "evaluating_s": "evaluating",
    "waiting_s": "waiting for draws",
    "saved_s": "spared by sharing",
}


def cost_figure(costs: Mapping[str, Any]) -> Figure:
    """Return bars of the epochs that were trained and shared, and of the trials' time.

    Args:
        costs: sums over the summaries of the studies.
    """
    figure, axes = new_axes(height=3.4, rows=2)
    for axis, names, unit, factor in ((axes[0], _EPOCHS, "epochs", 1.0), (axes[1], _SECONDS, "minutes", 1 / 60)):
        values = [costs.get(name, 0.0) * factor for name in names]
        axis.barh(range(len(values)), values, 0.65, color=[style_of(index).color for index in range(len(values))])
        for place, value in enumerate(values):
            axis.text(value, place, f" {value:,.3g}", va="center", color=INK, fontsize=SMALL)
        axis.set_yticks(range(len(values)), list(names.values()))
        axis.set_ylim(len(values) - 0.4, -0.6)
        axis.set_xlim(0, max([*values, 1e-9]) * 1.25)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel(unit)
    return figure
