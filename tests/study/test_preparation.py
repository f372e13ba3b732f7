import pytest

from gitdist.compute import Compute, Precision
from gitdist.errors import StudyError
from gitdist.generator.artefact import artefact_spec, generator_name
from gitdist.spec import IdentitySpec, MunitSpec, OracleSpec, PluginSpec, RandAugmentSpec
from gitdist.store import content_key
from gitdist.study.preparation import keep_precision, settle_generator

SHADE = PluginSpec(target="tests.generator.sample_plugins:Shade")


def test_a_generator_without_weights_is_named_by_what_determines_its_draws(tmp_path):
    names = {
        generator_name(spec, None)
        for spec in (SHADE, SHADE.model_copy(update={"options": {"strongest": 1}}), RandAugmentSpec(ops=1))
    }
    assert len(names) == 3
    assert [generator_name(spec, None) for spec in (OracleSpec(), IdentitySpec())] == ["oracle", "identity"]
    assert generator_name(SHADE, tmp_path / "abc") == "abc"


def test_a_study_keeps_to_the_plugin_or_file_that_it_was_started_with():
    settle_generator(SHADE, "one", None)
    settle_generator(SHADE, "one", "one")
    with pytest.raises(
        StudyError, match="another generator.kind 'plugin' .one. .* .two.; put that one back, or .*--fork"
    ):
        settle_generator(SHADE, "two", "one")
    with pytest.raises(StudyError, match="'oracle' .one. than its settings .* .two.; put that one back, or .*--fork"):
        settle_generator(OracleSpec(), "two", "one")


def named(spec: MunitSpec, precision: Precision) -> str:
    return content_key("generator", artefact_spec(spec, "data", Compute.resolve(precision, "cpu")))


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_a_study_keeps_to_the_precision_that_its_generator_was_trained_in_whatever_this_machine_has(precision):
    kept = keep_precision(MunitSpec(), "data", named(MunitSpec(), precision))
    assert kept == MunitSpec(precision=precision)
    assert keep_precision(MunitSpec(), "data", None) == MunitSpec()  # the first run, or one from before it was noted
    assert keep_precision(SHADE, "data", "one") == SHADE


def test_a_generator_of_other_settings_is_refused_before_it_is_trained():
    for spec in (MunitSpec(steps=1), MunitSpec(precision="bf16")):
        with pytest.raises(StudyError, match="another generator.kind 'munit' .* --fork NAME") as caught:
            keep_precision(spec, "data", named(MunitSpec(), "float32"))
        assert "\n" not in str(caught.value)
