import json
from pathlib import Path

import pytest

from gitdist.store import Store, canonical_json, content_key
from gitdist.store.artifact import read_spec, seal
from tests.store.things import SPEC, write_value


def test_the_key_follows_kind_and_spec_and_not_the_order_of_fields() -> None:
    assert content_key("thing", {"a": 1, "b": [1, 2]}) == content_key("thing", {"b": [1, 2], "a": 1})
    keys = {content_key(kind, spec) for kind in ("thing", "other") for spec in ({"a": 1}, {"a": 2}, {"b": 1}, {})}
    assert len(keys) == 8
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


def test_keys_and_manifests_are_those_of_existing_stores(tmp_path: Path) -> None:
    assert content_key("dataset", {"source": "digits", "seed": 1}) == "bd37943034f50d3bba2e"
    (tmp_path / "value.txt").write_text("whole")
    seal(tmp_path, "thing", SPEC)
    checksum = (
        "41829ce1ed5e6f1cbc0d12980c78158b2808362f9a252af699c4fa06d70f7b37"
        "ac9aab51b4a5b4f8db065b764bdf072ce3d6919ab46d9bfc688716408aefd915"
    )
    manifest = {"format": 1, "kind": "thing", "spec": SPEC, "checksums": {"value.txt": checksum}}
    assert (tmp_path / "artefact.json").read_text() == json.dumps(manifest, indent=2, sort_keys=True)


def test_a_spec_is_read_from_an_intact_manifest_only(tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build("thing", SPEC, write_value)
    assert read_spec(path) == SPEC
    for content in ("[]", '{"spec": 3}', "{"):
        (path / "artefact.json").write_text(content)
        assert read_spec(path) is None
    assert read_spec(tmp_path) is None
