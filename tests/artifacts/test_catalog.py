"""The table of artifacts: paths and their names, there and back."""

import pytest

from singflow.artifacts.catalog import CATALOG, TIERS, artifact_of

NAMES = {"model": "timm/resnet18.a1_in1k", "space": "s", "kind": "mlp3", "shard": "00012"}


@pytest.mark.parametrize("name", CATALOG)
def test_a_path_names_its_artifact_and_what_it_is_of(tmp_path, name):
    artifact = CATALOG[name]
    path = artifact.at(tmp_path, **NAMES)
    place = path.relative_to(tmp_path).as_posix()
    assert artifact_of(place) == name
    own = {wildcard: NAMES[wildcard] for wildcard in artifact.wildcards}
    assert artifact.names_in(place) == own and artifact.tier in TIERS
    for file in (path, path.with_name(f"{path.name}.tmp")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    if artifact.wildcards:
        assert list(artifact.among(tmp_path)) == [(path, own)]


def test_other_files_are_no_artifacts():
    places = "logs/x.log", "tables/old.csv", "features/m/shard-x.safetensors", "scores/m.parquet"
    assert {artifact_of(place) for place in places} == {None}
