import json
import os
import pickle
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gitdist.device import Compute
from gitdist.errors import DataError, SpecError
from gitdist.generator.kinds import find_artifact, load_generator, needs_training, obtain_artifact
from gitdist.generator.pretrained import load_pretrained, read_checkpoint, read_pretrained, save_pretrained
from gitdist.spec import PretrainedSpec
from gitdist.store import Store
from tests.generator import published

CPU = Compute.resolve("float32", "cpu")
SHAPES = {"dim": 4, "depth": 2, "num_res": 2, "mlp_dim": 6, "style_dim": 3}


def state(channels: int = 1, **changes: int) -> published.State:
    return published.random_state(0, channels=channels, **{**SHAPES, **changes})


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write(tmp_path / "gen.pt", {"a": state(), "b": {}})


def imported(checkpoint: Path) -> Path:
    out = checkpoint.with_suffix(".safetensors")
    save_pretrained(out, *read_checkpoint(checkpoint))
    return out


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
@pytest.mark.parametrize("changes", [{}, {"depth": 1, "num_res": 3}, {"depth": 3, "dim": 2}])
def test_an_imported_network_computes_what_the_published_one_does(tmp_path, channels, side, changes):
    weights = state(channels, **changes)
    sizes = {name: {**SHAPES, **changes}[name] for name in ("depth", "num_res")}
    side = 32 if sizes["depth"] == 3 else side
    architecture, own = read_checkpoint(write(tmp_path / "gen.pt", {"a": weights, "b": weights}))
    network = architecture.auto_encoder()
    network.load_state_dict(own)
    rng = torch.Generator().manual_seed(1)
    images = torch.rand(3, channels, side, side, generator=rng) * 2 - 1
    styles = torch.randn(3, 3, generator=rng)
    with torch.inference_mode():
        content = network.content_encoder(images)
        expected = published.content_code(weights, images, **sizes)
        torch.testing.assert_close(content, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            network.style_encoder(images), published.style_code(weights, images), rtol=0, atol=1e-5
        )
        decoded = published.decode(weights, expected, styles, **sizes)
        torch.testing.assert_close(network.decode(expected, styles), decoded, rtol=0, atol=1e-5)
        assert decoded.std() > 0.1  # tanh is not saturated, so differences would show


def test_the_architecture_is_read_off_the_shapes(checkpoint):
    architecture, _ = read_checkpoint(checkpoint)
    assert architecture.model_dump(exclude={"format"}) == {
        "image_channels": 1,
        "dim": 4,
        "mlp_dim": 6,
        "style_dim": 3,
        "num_downsample": 2,
        "num_res": 2,
    }


def test_the_written_file_draws_what_the_reference_does(checkpoint, digits):
    generator = load_pretrained(imported(checkpoint), digits.image_shape, CPU)
    images = torch.tensor(digits.train.images[:4])
    drawn = generator.draw(generator.encode(images, images), np.random.default_rng(7))
    styles = torch.from_numpy(np.random.default_rng(7).standard_normal((4, 3), dtype=np.float32))
    code = published.content_code(state(), images / 127.5 - 1, 2, 2)
    expected = (published.decode(state(), code, styles, 2, 2) + 1) * 127.5
    assert (drawn - expected).abs().max() < 0.51


def changed(content: published.State, **changes: torch.Tensor | None) -> published.State:
    merged = {**content, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": changed(state(), dec__model__5__conv__bias=None)}, ["dec.model.5.conv.bias is missing", "dim 4"]),
        ({"a": changed(state(), dec__model__9__conv__bias=torch.ones(1))}, ["dec.model.9.conv.bias is unknown"]),
        ({"a": changed(state(), mlp__model__2__fc__bias=torch.ones(5))}, ["mlp.model.2.fc.bias", "[5]", "[128]"]),
        ({"a": changed(state(), enc_content__model__0__conv__weight=None)}, ["conv.weight is missing"]),
        ({"a": changed(state(), mlp__model__0__fc__weight=torch.ones(2))}, ["mlp.model.0.fc.weight is of shape [2]"]),
        ({"a": {"x": 3}}, ["'x' is of type int"]),
        ({"a": {**state(), 3: torch.ones(1)}}, ["3 is of type Tensor"]),
        ({"a": {**state(), "a\nname": torch.ones(1)}}, ["a name is unknown"]),
        ({"gen": state()}, ["it contains gen"]),
        ([1, 2], ["it contains list"]),
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path, content, words):
    with pytest.raises(DataError) as caught:
        read_checkpoint(write(tmp_path / "gen.pt", content))
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / "gen.pt") in message
    assert all(word in message for word in words), message


def damaged(path: Path, weight: torch.Tensor) -> Path:
    """Change one byte of a weight in a file, as a disk or a download does."""
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    return path


def optimiser() -> dict[str, object]:
    network = torch.nn.Linear(2, 2)
    network(torch.ones(1, 2)).sum().backward()
    adam = torch.optim.Adam(network.parameters())
    adam.step()
    return adam.state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"a": state(), "b": state(), "ha": state(), "sa": torch.ones(3), "iterations": 7, "gen": optimiser()},
        {"a": state(), "dis": {"cnns.0.weight": torch.full((2,), torch.nan)}},
        state(),
        {f"module.{name}": weight for name, weight in state().items()},
        {"a": {f"module.{name}": weight for name, weight in state().items()}, "b": {}},
        {"a": {**state(), "dec.model.0.model.0.model.0.norm.num_batches_tracked": torch.tensor(3.0)}},
    ],
    ids=[
        "more entries",
        "a broken entry that is not read",
        "a state alone",
        "DataParallel",
        "DataParallel in a",
        "count",
    ],
)
@pytest.mark.parametrize("as_archive", [True, False])
def test_the_same_weights_are_read_from_every_layout(tmp_path, checkpoint, content, as_archive):
    expected = read_checkpoint(checkpoint)
    torch.save(content, tmp_path / "other.pt", _use_new_zipfile_serialization=as_archive)
    architecture, weights = read_checkpoint(tmp_path / "other.pt")
    assert architecture == expected[0] and weights.keys() == expected[1].keys()
    assert all(torch.equal(weight, expected[1][name]) for name, weight in weights.items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e300])
@pytest.mark.parametrize("name", ["dec.model.2.norm.gamma", "enc_style.model.6.bias"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, name, value):
    weights = state()
    weights[name] = weights[name].double()
    weights[name][0] = value
    with pytest.raises(DataError, match=f"{name} contains NaN or infinite values") as caught:
        read_checkpoint(write(tmp_path / "gen.pt", {"a": weights}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "weight", [torch.ones(2, dtype=torch.int64), torch.ones(2).to_sparse(), torch.ones(2, dtype=torch.complex64)]
)
def test_a_weight_that_is_no_plain_tensor_of_real_numbers_is_refused(tmp_path, weight):
    with pytest.raises(DataError, match="mlp.model.0.fc.bias is not a plain tensor of real numbers"):
        read_checkpoint(write(tmp_path / "gen.pt", {"a": {**state(), "mlp.model.0.fc.bias": weight}}))


def test_an_archive_with_a_wrong_checksum_is_refused(checkpoint):
    with pytest.raises(DataError, match="the checksum of gen/data/[0-9]+ in its zip archive is wrong"):
        read_checkpoint(damaged(checkpoint, state()["dec.model.5.conv.weight"]))


def test_an_archive_that_is_cut_short_is_refused(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    with pytest.raises(DataError, match="its zip archive is damaged or cut short") as caught:
        read_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(path)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda path: torch.save({"a": Namespace(x=1)}, path), "holds argparse.Namespace, which is neither"),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "holds torch.nn.modules.linear.Linear, which"),
        (lambda path: torch.save([Namespace()], path, _use_new_zipfile_serialization=False), "holds argparse"),
        (script, "it is a TorchScript program"),
        (lambda path: path.write_bytes(pickle.dumps({"a": {"b": 1}})), "not a pickle of tensors and plain values"),
        (lambda path: path.write_bytes(b"no pickle at all"), "not a pickle of tensors and plain values"),
    ],
)
def test_what_torch_refuses_is_said_in_our_words_and_without_its_advice(tmp_path, save, words):
    save(tmp_path / "gen.pt")
    with pytest.raises(DataError, match=words) as caught:
        read_checkpoint(tmp_path / "gen.pt")
    message = str(caught.value)
    assert not any(advice in message for advice in ("weights_only", "trust", "option", "github", "\n")), message


NO_WEIGHTS = {
    "it is a web page": lambda path, whole: path.write_bytes(b"<!DOCTYPE html><html>Not found</html>"),
    "git lfs pull": lambda path, whole: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "it is empty": lambda path, whole: path.write_bytes(b""),
    "it is a folder": lambda path, whole: path.mkdir(),
    "it is a pipe": lambda path, whole: os.mkfifo(path),
    "it is a device": lambda path, whole: path.symlink_to("/dev/zero"),
    "leads nowhere": lambda path, whole: path.symlink_to("absent"),
    "half of the free memory": lambda path, whole: sparse(path, 2**43),
    "cut short|incomplete": lambda path, whole: path.write_bytes(whole[:-100]),
}


def sparse(path: Path, size: int) -> None:
    """Write a file of any size that takes no blocks of the disk."""
    with open(path, "wb") as stream:
        stream.truncate(size)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reason", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_called_what_it_is(checkpoint, digits, tmp_path, reason):
    own = imported(checkpoint)
    for name, whole in (("x.pth", checkpoint.read_bytes()), ("x.safetensors", own.read_bytes())):
        path = tmp_path / name
        NO_WEIGHTS[reason](path, whole)
        with pytest.raises((DataError, SpecError), match=f"{name}.*({reason})") as caught:
            if name == "x.pth":
                read_checkpoint(path)
            else:
                obtain_artifact(
                    PretrainedSpec(path=str(path)), digits, Store(tmp_path / "store"), lambda step: None, CPU
                )
        assert str(caught.value).isprintable()


def test_a_checkpoint_that_was_not_imported_is_called_one(checkpoint):
    with pytest.raises(SpecError, match="a checkpoint, which must be imported"):
        read_pretrained(checkpoint, (1, 28, 28))


@pytest.mark.parametrize("name", ["mlp.model.0.fc.bias", "enc_content.model.0.conv.weight"])
def test_a_small_file_with_a_weight_of_any_size_is_refused(tmp_path, name):
    whole = state()
    vast = torch.zeros((1,) * whole[name].ndim).expand(2**40, *whole[name].shape[1:])
    with pytest.raises(DataError, match=f"{name} .* repeats its values"):
        read_checkpoint(write(tmp_path / "gen.pt", {"a": {**whole, name: vast}}))


def test_an_archive_that_unpacks_to_any_size_is_refused(checkpoint):
    with zipfile.ZipFile(checkpoint) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="is compressed, which torch.save does not do"):
        read_checkpoint(checkpoint)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "changed", [{"num_res": 10**9}, {"num_downsample": 10**9}, {"dim": 10**30}, {"dim": 2.5}, {"dim": None}]
)
def test_an_architecture_that_its_weights_do_not_have_is_refused_at_once(checkpoint, changed):
    architecture, weights = read_checkpoint(checkpoint)
    file = checkpoint.with_suffix(".safetensors")
    safetensors.torch.save_file(weights, file, {"gitdist": json.dumps(architecture.model_dump() | changed)})
    with pytest.raises(SpecError, match="must be an imported generator") as caught:
        read_pretrained(file, (1, 28, 28))
    assert "validation error" not in str(caught.value)


class Trap:
    def __reduce__(self):
        return Path.write_text, (Path("trapped"), "x")


def test_no_code_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="neither a tensor nor a plain value"):
        read_checkpoint(write(tmp_path / "gen.pt", {"a": Trap()}))
    assert not Path("trapped").exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"no pickle at all", b"\x80\x02.", b"\x80\x02M\x01", b"\x80\x02}K\x00a."]
)
def test_a_file_that_is_missing_or_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "gen.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_pretrained_generator_is_named_by_content_and_kept_in_the_store(checkpoint, digits, tmp_path):
    store, file = Store(tmp_path / "store"), imported(checkpoint)
    other = imported(write(tmp_path / "other.pt", {"a": published.random_state(1, channels=1, **SHAPES), "b": {}}))

    def artifact(path: Path) -> Path:
        return obtain_artifact(PretrainedSpec(path=str(path)), digits, store, lambda step: None, CPU)

    first, spec = artifact(file), PretrainedSpec(path=str(tmp_path / "moved.safetensors"))
    assert not needs_training(spec)
    assert artifact(other) != first
    file.rename(spec.path)
    assert artifact(Path(spec.path)) == first == find_artifact(spec, digits, store, CPU)
    Path(spec.path).unlink()
    assert load_generator(spec, digits, first, CPU).device.type == "cpu"
    with pytest.raises(SpecError, match="generator.path.*moved.safetensors: No such file"):
        artifact(Path(spec.path))


def test_a_file_of_another_make_is_named_and_leaves_nothing_in_the_store(checkpoint, digits, tmp_path):
    store, path = Store(tmp_path / "store"), tmp_path / "mine.safetensors"
    coloured = imported(write(tmp_path / "colour.pt", {"a": state(3), "b": {}})).read_bytes()
    for content, words in ((b"some text", "mine.safetensors is not one"), (coloured, "3 channel")):
        path.write_bytes(content)
        with pytest.raises(SpecError, match=words):
            obtain_artifact(PretrainedSpec(path=str(path)), digits, store, lambda step: None, CPU)
    assert not list(store.root.rglob("*.safetensors"))


def test_a_damaged_file_is_refused_in_the_store_and_outside(checkpoint, digits, tmp_path):
    file = damaged(imported(checkpoint), state()["dec.model.5.conv.weight"])
    for load in (read_pretrained, lambda path, shape: load_pretrained(path, shape, CPU)):
        with pytest.raises(SpecError, match="the checksum of its weights is wrong.; import the checkpoint again"):
            load(file, digits.image_shape)
    with pytest.raises(SpecError, match="the checksum of its weights is wrong"):
        obtain_artifact(PretrainedSpec(path=str(file)), digits, Store(tmp_path / "store"), lambda step: None, CPU)


def test_an_imported_file_without_a_checksum_is_read_but_not_if_a_weight_is_not_finite(checkpoint, digits):
    architecture, weights = read_checkpoint(checkpoint)
    file = checkpoint.with_name("old.safetensors")
    safetensors.torch.save_file(weights, file, {"gitdist": architecture.model_dump_json()})
    assert all(
        torch.equal(weight, weights[name]) for name, weight in read_pretrained(file, digits.image_shape)[1].items()
    )
    weights["mlp.layers.1.bias"][2] = torch.nan
    save_pretrained(file, architecture, weights)
    with pytest.raises(SpecError, match="mlp.layers.1.bias contains NaN or infinite values"):
        read_pretrained(file, digits.image_shape)


def test_the_written_file_is_the_same_each_time(checkpoint):
    assert len({imported(checkpoint).read_bytes() for _ in range(5)}) == 1


def test_a_file_that_changes_before_it_is_copied_is_refused(checkpoint, digits, tmp_path):
    file = imported(checkpoint)

    class SlowStore(Store):
        def get_or_build(self, kind, spec, build):
            file.write_bytes(b"other")
            return super().get_or_build(kind, spec, build)

    store = SlowStore(tmp_path / "store")
    with pytest.raises(SpecError, match="gen.safetensors changed; run again"):
        obtain_artifact(PretrainedSpec(path=str(file)), digits, store, lambda step: None, CPU)
    assert not list(store.root.rglob("*.safetensors"))


def test_the_home_directory_may_be_written_short(checkpoint, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = PretrainedSpec(path=f"~/{imported(checkpoint).name}")
    assert obtain_artifact(spec, digits, Store(tmp_path / "store"), lambda step: None, CPU) is not None
    with pytest.raises(SpecError, match="~nobody-here/x"):
        obtain_artifact(PretrainedSpec(path="~nobody-here/x"), digits, Store(tmp_path), lambda step: None, CPU)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((3, 28, 28), ["1 channel", "have 3"]), ((1, 30, 28), ["multiples of 4", "30x28"])],
)
def test_images_of_another_form_are_refused(checkpoint, shape, words):
    with pytest.raises(SpecError) as caught:
        load_pretrained(imported(checkpoint), shape, CPU)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_file_of_another_make_is_refused_in_one_line(checkpoint, tmp_path):
    whole = imported(checkpoint).read_bytes()
    other = whole.replace(b'\\"dim\\":4', b'\\"dim\\":5')
    assert other != whole
    for content in (b"", checkpoint.read_bytes(), whole[:-100], other):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(SpecError, match="must be an imported generator") as caught:
            load_pretrained(tmp_path / "x.safetensors", (1, 28, 28), CPU)
        assert "\n" not in str(caught.value)
