import pytest

from gitdist.errors import StudyError
from gitdist.generator.artefact import generator_name
from gitdist.spec import IdentitySpec, MunitSpec, OracleSpec, PluginSpec, RandAugmentSpec
from gitdist.study.preparation import settle_generator

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
    settle_generator(MunitSpec(), "two", "one")  # the study file says all of it but the precision
