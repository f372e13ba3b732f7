"""What studies cost, and samples of their generators."""

from collections.abc import Iterator

from gitdist.report.comparison import Report, extra_labels
from gitdist.report.figures.style import Picture, draw_bars, new_axes
from gitdist.report.tables import total_costs

_EPOCHS = {"trained_epochs": "trained", "shared_epochs": "shared"}
_SECONDS = {
    "training_s": "training",
    "evaluating_s": "evaluating",
    "waiting_s": "waiting for draws",
    "saved_s": "saved by sharing",
}


def cost_figures(report: Report) -> Iterator[Picture]:
    """Yield the epochs trained and shared and the time of all finished studies together."""
    costs = total_costs(report)
    if costs["training_s"]:
        figure, axes = new_axes(height=3.4, rows=2)
        for axis, names, unit, factor in ((axes[0], _EPOCHS, "epochs", 1.0), (axes[1], _SECONDS, "minutes", 1 / 60)):
            values = [costs[name] * factor for name in names]
            draw_bars(axis, values, list(names.values()), [f"{value:,.3g}" for value in values])
            axis.set_xlabel(unit)
        caption = (
            f"All finished studies: {costs['generated_images']:,.0f} images generated; trials waited for them "
            f"{costs['waiting_s'] / costs['training_s']:.1%} of their training time; sharing the first stage saved "
            f"{costs['saved_s']:,.0f} s of training."
        )
        yield Picture("costs", caption, figure)


def sample_pictures(report: Report) -> Iterator[Picture]:
    """Yield the samples of each generator: of the first version of a data set, and no picture twice."""
    names: dict[bytes, str] = {}
    seen = set()
    for study in report.studies:
        data = study.spec.data
        generator = (data.source, data.path, data.nuisance, extra_labels(study))
        if study.samples is not None and generator not in seen:
            seen.add(generator)
            names.setdefault(study.samples, study.spec.name)
    for samples, name in names.items():
        yield Picture(
            f"samples-{name}", f"{name}: an image of each class (left) and generated images from it.", samples
        )
