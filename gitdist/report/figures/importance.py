"""How much each searched field matters, as bars."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from gitdist.report.figures.style import INK, SMALL, new_axes, style_of


def importance_figure(title: str, shares: Mapping[str, float]) -> Figure:
    """Return the figure of importances.

    Args:
        title: above it.
        shares: share of importance by field, the largest first.
    """
    figure, (axis,) = new_axes(title, height=1.2 + 0.4 * len(shares))
    axis.barh(range(len(shares)), list(shares.values()), 0.6, color=style_of(0).color)
    for place, share in enumerate(shares.values()):
        axis.text(share + 0.01, place, f"{share:.2f}", va="center", color=INK, fontsize=SMALL)
    axis.set_yticks(range(len(shares)), list(shares))
    axis.set_ylim(len(shares) - 0.5, -0.5)
    axis.set_xlim(0, max(shares.values()) * 1.15)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("share of importance (sum 1)")
    return figure
