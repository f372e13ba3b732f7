import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.errors import DiskError, StreamError
from gitdist.generator.munit.networks import WEIGHTS_FILE
from gitdist.spec import GeneratorSpec, IdentitySpec, OracleSpec, PluginSpec, RandAugmentSpec, Share, StreamSpec
from gitdist.store import Store
from gitdist.store.gc import read_inventory
from gitdist.store.layout import StoreLayout, cached_store
from gitdist.stream.block_cache import BLOCKS, BlockCache
from gitdist.stream.blocks import Block, BlockKey, MakerStats
from gitdist.stream.server import GeneratorServer, ServerConfig, draw_spec, stream_digest
from tests.disks import fill, small_disk
from tests.object_store import ObjectStore

KEY = BlockKey(3, 1)


@pytest.fixture
def config(digits_directory: Path, tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        dataset=digits_directory,
        generator=OracleSpec(),
        artifact=None,
        stream=StreamSpec(block_size=20, keep=True),
        store=Store(tmp_path),
    )


def files(config: ServerConfig) -> list[Path]:
    return sorted(folder_of(config).glob("[!.]*"))


def folder_of(config: ServerConfig) -> Path:
    assert config.store is not None
    return config.store.root / BLOCKS / GeneratorServer(config, Share()).signature().digest


def make(server: GeneratorServer, key: BlockKey) -> Block:
    return server.make(key, server.signature().digest)


def assert_same(block: Block, other: Block) -> None:
    np.testing.assert_array_equal(block.images, other.images)
    np.testing.assert_array_equal(block.sources, other.sources)
    assert (block.images.dtype, block.sources.dtype) == (other.images.dtype, other.sources.dtype)


def test_second_server_over_the_same_folder_generates_nothing(config: ServerConfig) -> None:
    keys = [KEY, BlockKey(3, 1, 1), BlockKey(0, 0)]
    first, second = GeneratorServer(config, Share()), GeneratorServer(config, Share())
    made = [make(first, key) for key in keys]
    for key, block in zip(keys, made, strict=True):
        assert_same(make(second, key), block)
        assert_same(config.build_maker().make(key), block)
    assert (first.stats().done.blocks, first.stats().done.cache_hits) == (3, 0)
    done = second.stats().done
    assert (done.blocks, done.images, done.encoded, done.cache_hits) == (0, 0, 0, 3)
    assert len(files(config)) == 3


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def take_anothers_name(file: Path) -> None:
    file.with_name("0-3-2.block").replace(file)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, take_anothers_name])
def test_damaged_file_is_removed_and_made_again(config: ServerConfig, damage: Any) -> None:
    first = GeneratorServer(config, Share())
    whole = make(first, KEY)
    make(first, BlockKey(3, 2))
    file = next(file for file in files(config) if file.name == "0-3-1.block")
    damage(file)
    assert BlockCache(folder_of(config), first.signature().layout).load(KEY) is None
    assert not file.exists()
    second = GeneratorServer(config, Share())
    assert_same(make(second, KEY), whole)
    assert second.stats().done.blocks == 1
    assert file.exists()


def test_a_full_disk_is_a_one_line_error_and_leaves_no_part_of_a_file(config: ServerConfig, tmp_path: Path) -> None:
    maker = config.build_maker()
    block = maker.make(KEY)
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = BlockCache(disk / "blocks", maker.layout)
        folder.save(KEY, block)
        fill(disk)
        with pytest.raises(DiskError, match="No space left on device") as caught:
            folder.save(BlockKey(3, 2), block)
        assert "\n" not in str(caught.value)
        assert [file.name for file in (disk / "blocks").iterdir()] == ["0-3-1.block"]
        loaded = folder.load(KEY)
        assert loaded is not None
        assert_same(loaded, block)


def test_blocks_are_kept_within_the_stores_bound_and_made_beyond_it(config: ServerConfig) -> None:
    assert config.store is not None
    make(GeneratorServer(replace(config, stream=StreamSpec(block_size=10, keep=True)), Share()), KEY)
    block_bytes = config.build_maker().layout.block_bytes + 16
    bounded = replace(config, store=Store(config.store.root, max_bytes=3 * block_bytes))
    server = GeneratorServer(bounded, Share())
    with config.store.pin_used("study"):
        config.store.mark_used(BLOCKS, server.signature().digest)
        made = [make(server, BlockKey(3, index)) for index in range(5)]
        assert len(files(bounded)) == 3 and server.stats().done.cache_rejects == 2
        (entry,) = read_inventory(StoreLayout(config.store.root))  # what nobody held has gone
        assert entry.num_bytes <= 3 * block_bytes and entry.pinned_by == {"study"}
        assert_same(made[4], config.build_maker().make(BlockKey(3, 4)))


def test_all_that_determines_a_block_is_in_its_digest(tmp_path: Path) -> None:
    trained, again = tmp_path / "trained", tmp_path / "again" / "trained"  # of one spec, to different weights
    for directory, weights in ((trained, b"some"), (again, b"others")):
        directory.mkdir(parents=True)
        (directory / WEIGHTS_FILE).write_bytes(weights)
    cpu, bf16, cuda = "cpu float32, torch 2", "cpu bf16, torch 2", "cuda H100 float32, torch 2"

    def key(
        generator: GeneratorSpec | None = None,
        artifact: Path | None = None,
        compute: str = cpu,
        data: str = "data",
        **stream: Any,
    ) -> str:
        spec = StreamSpec(**stream)
        return stream_digest(data, spec.block_size, draw_spec(generator or OracleSpec(), artifact, spec, compute))

    keys = [
        key(),
        key(data="other data"),
        key(IdentitySpec()),
        key(artifact=trained),
        key(artifact=again),
        key(seed=1),
        key(block_size=32),
        key(compile=True),
        key(compute=bf16),
        key(compute=cuda),
        key(RandAugmentSpec(ops=1)),
        key(RandAugmentSpec(ops=2)),
        key(PluginSpec(target="tests.generator.sample_plugins:Shade")),
    ]
    assert len(set(keys)) == len(keys)
    assert key(lookahead=5, window_mb=1, keep=True, per_seed=True) == keys[0]
    assert key(artifact=shutil.copytree(trained, tmp_path / "elsewhere" / "trained")) == keys[3]


def test_the_signature_contains_how_a_server_computes(config: ServerConfig) -> None:
    signature = GeneratorServer(replace(config, device="cpu"), Share()).signature()
    assert signature.draws["compute"] == f"cpu {Compute.resolve(device='cpu').precision}, torch {torch.__version__}"
    other = replace(config, stream=config.stream.model_copy(update={"block_size": 10}))
    assert GeneratorServer(other, Share()).signature().draws == signature.draws
    assert GeneratorServer(other, Share()).signature().digest != signature.digest


def test_a_server_restarted_where_it_would_make_other_draws_refuses(config: ServerConfig) -> None:
    began = GeneratorServer(with_precision(config, "bf16"), Share()).signature().digest
    server = GeneratorServer(with_precision(config, "float32"), Share())
    images = np.zeros((2, 1, 8, 8), np.uint8)
    for ask in (lambda: server.make(KEY, began), lambda: server.transform(images, images, "preview", 0, 0, began)):
        with pytest.raises(StreamError, match="would make others .c.* float32") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert server.stats().done == MakerStats() and not files(config)


def with_precision(config: ServerConfig, precision: str) -> ServerConfig:
    """As on a node whose processor, or card, has ``auto`` mean another precision."""
    return replace(config, stream=config.stream.model_copy(update={"precision": precision}))


def test_a_server_on_another_machine_reads_kept_blocks_and_makes_damaged_ones(
    object_store: ObjectStore, digits_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = object_store.uri
    config = ServerConfig(
        dataset=digits_directory,
        generator=OracleSpec(),
        artifact=None,
        stream=StreamSpec(block_size=20, keep=True),
        store=Store(cached_store(uri), shared=f"{uri}/store", results=uri),
    )
    sent = pickle.dumps(config)
    made = make(GeneratorServer(config, Share()), KEY)
    (name,) = object_store.names("store/blocks")

    def server_on(machine: str) -> GeneratorServer:
        monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / machine))
        return GeneratorServer(pickle.loads(sent), Share())

    second = server_on("second")
    assert_same(make(second, KEY), made)
    assert (second.stats().done.blocks, second.stats().done.cache_hits) == (0, 1)
    assert len(list((tmp_path / "second").glob("*/store/blocks/*/*.block"))) == 1
    object_store.write(f"store/blocks/{name}", b"damaged")
    third = server_on("third")
    assert_same(make(third, KEY), made)
    assert (third.stats().done.blocks, third.stats().done.cache_hits) == (1, 0)
