import pytest
import ray

from gitdist.data.dataset import prepare
from gitdist.device import Compute
from gitdist.errors import StudyError
from gitdist.generator.kinds import generator_name, munit_artifact_spec
from gitdist.spec import (
    DataSpec,
    IdentitySpec,
    MunitSpec,
    OracleSpec,
    PluginSpec,
    ProfileSpec,
    RandAugmentSpec,
    ResourcesSpec,
)
from gitdist.store import Store, content_key
from gitdist.study.resources.generator import check_same_generator, resolve_precision
from gitdist.study.resources.generator_training import obtain_generator
from tests.stream.holder import Holder

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
    check_same_generator(SHADE, "one", None)
    check_same_generator(SHADE, "one", "one")
    with pytest.raises(StudyError, match="'plugin': .* with one, .* two; restore the former one"):
        check_same_generator(SHADE, "two", "one")
    with pytest.raises(StudyError, match="'oracle': .* with one, but its settings .* two; restore"):
        check_same_generator(OracleSpec(), "two", "one")


def named(spec: MunitSpec, precision: str) -> str:
    return content_key("generator", munit_artifact_spec(spec, "data", Compute.resolve(precision, "cpu")))


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_a_study_keeps_to_the_precision_that_its_generator_was_trained_in_whatever_this_machine_has(precision):
    kept = resolve_precision(MunitSpec(), "data", named(MunitSpec(), precision))
    assert kept == MunitSpec(precision=precision)
    assert resolve_precision(MunitSpec(), "data", None) == MunitSpec()  # the first run, or one from before it was noted
    assert resolve_precision(SHADE, "data", "one") == SHADE


def test_a_generator_of_other_settings_is_refused_before_it_is_trained():
    for spec in (MunitSpec(steps=1), MunitSpec(precision="bf16")):
        with pytest.raises(StudyError, match="kind 'munit': ") as caught:
            resolve_precision(spec, "data", named(MunitSpec(), "float32"))
        assert "\n" not in str(caught.value) and caught.value.remedy == "fork"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_lack_of_room_for_the_training_is_told_until_there_is_some(tmp_path):
    store, told = Store(tmp_path / "store"), []
    digits = prepare(DataSpec(profile=ProfileSpec(kind="exponential", largest=60, factor=0.2)), store)
    holder = ray.remote(num_cpus=3)(Holder).remote()
    ray.get(holder.ready.remote())

    def on_wait(waited_s: float) -> None:
        assert waited_s >= 5
        told.append("no room")
        ray.kill(holder)

    small = MunitSpec(dim=8, num_res=1, discriminator_dim=8, discriminator_layers=2, steps=2, batch_size=4)
    needs = ResourcesSpec.model_validate({"training": {"cpu": 2}})
    trained = obtain_generator(small, digits, store, needs, lambda step: told.append(step.step), on_wait)
    assert trained.artifact is not None and trained.past_steps[-1].step == 2
    assert told[0] == "no room" and told.count("no room") == 1 and told[-1] == 2
    states = {group["state"] for group in ray.util.placement_group_table().values()}
    assert states == {"REMOVED"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_plugin_that_ends_its_process_at_the_same_step_of_its_training_again_and_again_is_named(tmp_path):
    store, steps = Store(tmp_path / "store"), []
    digits = prepare(DataSpec(profile=ProfileSpec(kind="exponential", largest=60, factor=0.2)), store)
    ends = PluginSpec(target="tests.generator.sample_plugins:EndsTraining")
    with pytest.raises(StudyError, match="sample_plugins:EndsTraining.*ended .* after training step 1"):
        obtain_generator(ends, digits, store, ResourcesSpec(), steps.append, lambda waited_s: None)
    assert {step.step for step in steps} == {1}
