"""Kept blocks of results on an object store, which a server on another machine reads."""

import pickle

import numpy as np

from gitdist.spec import OracleSpec, Share, StreamSpec
from gitdist.store import Store
from gitdist.store.layout import cached_store
from gitdist.stream.blocks import BlockKey
from gitdist.stream.server import GeneratorServer, ServerConfig

KEY = BlockKey(3, 1)


def make(server):
    return server.make(KEY, server.product().block_key)


def test_a_server_on_another_machine_reads_what_was_kept_and_makes_what_was_damaged(
    object_store, digits_directory, monkeypatch, tmp_path
):
    uri = object_store.uri
    config = ServerConfig(
        dataset=digits_directory,
        generator=OracleSpec(),
        artefact=None,
        stream=StreamSpec(block_size=20, keep=True),
        store=Store(cached_store(uri), shared=f"{uri}/store", results=uri),
    )
    sent = pickle.dumps(config)
    made = make(GeneratorServer(config, Share(cpu=1)))
    (name,) = object_store.names("store/blocks")

    def server_on(machine):
        monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / machine))
        return GeneratorServer(pickle.loads(sent), Share(cpu=1))

    second = server_on("second")
    np.testing.assert_array_equal(make(second).images, made.images)
    assert (second.stats().done.blocks, second.stats().done.read) == (0, 1)
    assert len(list((tmp_path / "second").glob("*/store/blocks/*/*.block"))) == 1
    object_store.write(f"store/blocks/{name}", b"damaged")
    third = server_on("third")
    np.testing.assert_array_equal(make(third).images, made.images)
    assert (third.stats().done.blocks, third.stats().done.read) == (1, 0)
