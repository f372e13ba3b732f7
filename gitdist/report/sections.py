"""``SECTIONS``: the table of all figures and tables of a report.

To add one, write a function that takes the report and yields ``Picture`` or ``Table`` (none if it does not apply), and
name it in a section.
"""

from collections.abc import Callable, Iterable
from functools import partial

from gitdist.report import tables
from gitdist.report.comparison import Report
from gitdist.report.figures.class_size import class_size_figures
from gitdist.report.figures.overview import overview_figures
from gitdist.report.figures.parameter import parameter_figures
from gitdist.report.figures.per_class import per_class_figures
from gitdist.report.figures.progress import curve_figures, history_figures, timeline_figures
from gitdist.report.figures.search import importance_figures, parallel_figures, slice_figures, surface_figures
from gitdist.report.figures.studies import cost_figures, sample_pictures
from gitdist.report.figures.style import Picture

SECTIONS: dict[str, tuple[Callable[[Report], Iterable[Picture | tables.Table]], ...]] = {
    "Overview": (overview_figures,),
    "Settings": (tables.method_tables,),
    "Search": (history_figures, slice_figures, importance_figures, parallel_figures, surface_figures),
    "Learning curves": (curve_figures,),
    "Paired differences": (tables.difference_tables,),
    "eKLD by class size": (partial(class_size_figures, metric="ekld"), tables.correlation_table),
    "Consistency by class size": (partial(class_size_figures, metric="consistency"),),
    "Per-class accuracy": (per_class_figures,),
    "Class-size threshold K": (partial(parameter_figures, field="threshold"),),
    "Augmentation fraction p": (partial(parameter_figures, field="fraction"),),
    "Best trial": (tables.best_tables, tables.gap_tables),
    "Generator samples": (sample_pictures,),
    "Cost": (timeline_figures, cost_figures, tables.cost_table),
    "All trials": (tables.trials_table,),
}
"""The sections of the page by heading, in order; one without figures, tables and notes is left out."""

OPEN = ("Overview", "Settings", "Search")
"""The sections that are shown at once; the others open on demand."""
