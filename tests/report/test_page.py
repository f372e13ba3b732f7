import re
from html.parser import HTMLParser

import pytest

from gitdist.errors import StoreError, StudyError
from gitdist.report.comparison import Report
from gitdist.report.figures.style import Picture, new_axes
from gitdist.report.findings import findings, progress
from gitdist.report.page import write_report
from gitdist.report.sections import SECTIONS
from gitdist.report.tables import Table
from tests.report.studies import study, trial

VOID = {"meta", "img", "br", "link"}


class Outline(HTMLParser):
    """Checks that every element is closed where it stands, and notes what there is."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


METHODS = {"sampler": {"choice": ["instance", "class-balanced"]}, "seed": {"choice": [0, 1]}}


def compared(accuracies):
    """Two settings with two seeds each."""
    points = [{"sampler": sampler, "seed": seed} for sampler in METHODS["sampler"]["choice"] for seed in (0, 1)]
    trials = [trial(n, point, accuracy=accuracies[n]) for n, point in enumerate(points)]
    return study(space=METHODS, trials=trials)


def test_a_report_is_one_page_with_its_files(tmp_path):
    record = compared([0.5, 0.52, 0.7, 0.71])
    files = write_report("A <b>bold</b> & title", [record], tmp_path / "out")
    assert files[0] == tmp_path / "out" / "index.html" and all(file.exists() for file in files)
    names = {str(file.relative_to(tmp_path / "out")) for file in files}
    stem = "figures/ekld-by-class-size-digits-background"
    assert {
        f"{stem}.svg",
        f"{stem}.png",
        f"{stem}.pdf",
        "figures/overview.pdf",
        "tables/rank-correlations.csv",
        "tables/rank-correlations.tex",
    } <= names
    page = files[0].read_text()
    outline = Outline(page)
    assert "script" not in outline.tags and {"svg", "figcaption", "table"} <= outline.tags
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert "A &lt;b&gt;bold&lt;/b&gt; &amp; title" in page and "<b>" not in page
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page and "@media print" in page
    again = write_report("A <b>bold</b> & title", [record], tmp_path / "again")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [([0.5, 0.52, 0.7, 0.72], "an interval without zero"), ([0.5, 0.52, 0.4, 0.7], "which may be chance")],
)
def test_the_first_sentences_say_what_the_numbers_say(accuracies, words):
    record = compared(accuracies)
    report = Report([record])
    assert progress(report) == ["1 study, 4 of 4 trials finished; not all studies have finished."]
    invariance, best = findings(report)
    assert invariance.endswith(
        "with growing class size, per-class eKLD falls under sampler instance (rank correlation −1.00) and "
        "sampler class-balanced (rank correlation −1.00)."
    )
    assert "sampler class-balanced has the highest balanced accuracy" in best and words in best


def test_a_rank_that_the_common_replicates_do_not_confirm_is_said_to_be_none():
    points = [("instance", 0, 0.6), ("class-balanced", 0, 0.5), ("class-balanced", 1, 0.9)]
    trials = [trial(n, {"sampler": name, "seed": seed}, accuracy=x) for n, (name, seed, x) in enumerate(points)]
    record = study(space=METHODS, trials=trials)
    assert findings(Report([record]))[-1] == (
        "digits, background: sampler class-balanced has the highest balanced accuracy (0.700, test split), not "
        "confirmed by the 1 replicate in common with sampler instance (mean difference −0.100)."
    )


def test_a_label_is_shown_as_it_was_given():
    record = study(
        space={"method": {"choice": ["a-0.5"]}}, trials=[trial(0, {"method": "a-0.5"})], methods={"a-0.5": {}}
    )
    sentence = findings(Report([record]))[0]
    assert sentence.endswith("falls under a-0.5 (rank correlation −1.00).")


def test_one_replicate_is_no_claim():
    record = study(trials=[trial(0, accuracy=0.6)], baseline=trial(None, accuracy=0.5))
    assert findings(Report([record]))[-1].endswith("with one replicate, this may be chance.")


def per_trial_figures(report):
    """One figure per study with finished trials, as a newcomer would add it."""
    for study_ in report.studies:
        values = [trial_.metric("validation", "balanced_accuracy") for trial_ in study_.finished]
        if values:
            figure, (axis,) = new_axes(study_.spec.name)
            axis.plot(values)
            yield Picture(f"trials-{study_.spec.name}", "Balanced accuracy by trial number.", figure)


def count_tables(report):
    yield Table(
        "counts", "Number of trials per study", ["study", "n"], [[s.spec.name, len(s.trials)] for s in report.studies]
    )


def no_tables(report):
    yield from ()


def test_a_figure_and_a_table_are_added_by_one_function_and_one_line_each(tmp_path, monkeypatch):
    monkeypatch.setitem(SECTIONS, "By trial", (per_trial_figures, count_tables))
    monkeypatch.setitem(SECTIONS, "Empty", (no_tables,))
    files = write_report("s", [compared([0.5, 0.52, 0.7, 0.71])], tmp_path)
    names = {str(file.relative_to(tmp_path)) for file in files}
    assert {"figures/trials-s.png", "figures/trials-s.svg", "tables/counts.csv", "tables/counts.tex"} <= names
    assert (tmp_path / "tables" / "counts.csv").read_text() == "study,n\ns,4\n"
    page = files[0].read_text()
    Outline(page)
    assert "Balanced accuracy by trial number." in page
    assert page.index('id="all-trials"') < page.index('id="by-trial"') and "Empty" not in page


def test_nothing_finished_is_an_error_that_says_what_is_there(tmp_path):
    record = study(trials=[trial(0, state="failed"), trial(1, state="open"), trial(2, state="open")])
    with pytest.raises(StudyError, match=r"1 study \(s\): 1 failed, 2 open"):
        write_report("s", [record], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_report("s", [study(trials=[trial(0)])], tmp_path / "file" / "out")


def test_what_is_not_needed_at_once_is_folded(tmp_path):
    page = write_report("s", [compared([0.5, 0.52, 0.7, 0.72])], tmp_path)[0].read_text()
    folded = re.findall(r'<section id="([a-z-]+)"><details>', page)
    assert "paired-differences" in folded and "all-trials" in folded and "settings" not in folded
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert 0 < shown.count("<figure") < page.count("<figure")
    assert shown.index("is better in balanced accuracy than") < shown.index("<pre>") < shown.index("<figure")


def test_a_search_with_one_finished_trial_says_what_is_missing(tmp_path):
    space = {"threshold": {"int": [5, 100]}}
    page = write_report("s", [study(space=space, trials=[trial(0, {"threshold": 9})])], tmp_path)[0].read_text()
    assert "the search is shown from 2 finished trials on; 1 has finished" in page
