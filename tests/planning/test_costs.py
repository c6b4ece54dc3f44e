import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from singflow.analyses import concepts, maps, probes, readout
from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.parallel import AHEAD
from singflow.planning import costs
from singflow.planning.costs import (
    COSTS,
    IMAGENET,
    VIEW,
    WRITTEN,
    Size,
    disk_bytes,
    expected_images,
    peak_mb,
    seconds,
    size_of,
    study_bytes,
    wildcards,
)
from tests.data.archives import pack, write_rows
from tests.project import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STEPS = list(STAGES)
SIZE = Size(images=10_000, parameters_m=25.56, gmacs=4.09, steered=1000, passes=30)
SIZE = replace(SIZE, dimensions=(8, 1048))
TOWERS = pytest.mark.parametrize("step", ["extract_features", "embed_images"])


def entries(study):
    models = resolve_models("config/models.yaml", study["models"])
    return models, resolve_spaces("config/spaces.yaml", study["spaces"])


def of(content, **data):
    """A study with other data."""
    return content | {"data": content["data"] | data}


def grown(cost, step, small, large):
    return cost(step, replace(SIZE, **large)) - cost(step, replace(SIZE, **small))


def test_a_cost_is_a_steps_and_a_step_without_one_costs_what_others_like_it_do():
    assert set(COSTS) | set(WRITTEN) <= {*STEPS, "*", "plot_*"}
    for cost in (seconds, peak_mb, disk_bytes):
        assert cost("plot_another", SIZE) == cost("plot_controls", SIZE)
        assert cost("measure_another", SIZE) > 0
    assert peak_mb("measure_another", SIZE) >= peak_mb("validate_null_space", SIZE)


@pytest.mark.parametrize("step", sorted({*WRITTEN} - {"*", "plot_*"}))
def test_the_artifacts_of_a_step_tell_its_jobs_apart_as_the_rules_do(step):
    matrix = set(STAGES[step].get("matrix", {}))
    assert set(wildcards(step)) == matrix & {"model", "space", "kind", "shard"}


@pytest.mark.parametrize("step", STEPS)
def test_no_cost_falls_when_a_study_grows(step):
    fields = "images views feature_dim parameters_m gmacs steered passes concepts models"
    for field in fields.split():
        larger = replace(SIZE, **{field: 3 * getattr(SIZE, field)})
        for cost in (seconds, peak_mb, disk_bytes):
            assert 0 <= cost(step, SIZE) <= cost(step, larger), field


@pytest.mark.parametrize("step", ["measure_evidence", "summarize", "compare_models"])
def test_what_is_tested_beside_a_reference_takes_its_images_too_and_writes_no_more(step):
    beside = {"reference": (3 * SIZE.images, SIZE.shards)}
    assert grown(seconds, step, {}, beside) > 0 and grown(peak_mb, step, {}, beside) > 0
    assert grown(disk_bytes, step, {}, beside) == 0


def test_the_test_takes_no_more_memory_where_images_are_many_but_for_bytes_of_each():
    few, many = ({"images": n, "shards": n // 5000} for n in (20_000, IMAGENET))
    more = grown(peak_mb, "measure_evidence", few, many)
    assert 0 < 1e6 * more <= 400 * (IMAGENET - 20_000)


def test_few_images_are_read_out_by_kernels_which_grow_with_them_and_many_by_sums_which_do_not():
    sizes = [replace(SIZE, images=n) for n in (1, 1000, 2000, 10_000, 20_000)]
    none, few, twice, many, more = (seconds("measure_evidence", size) for size in sizes)
    assert twice - none > 2.9 * (few - none) and more < 1.51 * many
    assert (costs.FEATURES, costs.FLEXIBLE) == (readout.FEATURES, readout.FLEXIBLE)
    assert (costs.SCANNED, costs.PROBED) == (concepts.CELLS, probes.IN_MEMORY)
    assert costs.MAPPED == maps.OTHERS + 1


@pytest.mark.parametrize("step", STEPS)
def test_more_shards_never_need_more_and_a_gpu_or_a_core_never_takes_longer(step):
    many = replace(SIZE, shards=10)
    assert peak_mb(step, many) <= peak_mb(step, SIZE) and seconds(step, many) <= seconds(step, SIZE)
    assert seconds(step, replace(SIZE, gpu=True)) <= seconds(step, SIZE)
    assert seconds(step, replace(SIZE, threads=8)) <= seconds(step, SIZE)


@TOWERS
def test_the_shards_of_a_tower_share_its_rows(step):
    assert disk_bytes(step, SIZE) == 10 * disk_bytes(step, replace(SIZE, shards=10))
    one, ten = (grown(seconds, step, {"images": 1}, {"shards": n}) for n in (1, 10))
    assert one == pytest.approx(10 * ten, rel=0.01)


def test_features_take_the_bytes_that_their_tensors_have():
    rows = 10_000
    tensors = rows * SIZE.feature_dim * 4 + rows * 8 + rows * 4
    assert disk_bytes("extract_features", SIZE) == tensors


@TOWERS
def test_the_views_that_wait_for_a_tower_are_reckoned_with(step):
    job = {"images": 20, "threads": 2, "feature_dim": 1, "space_dim": 1}
    memory = grown(peak_mb, step, job, job | {"views": 100})
    assert 1e6 * memory > 99 * 2 * AHEAD * VIEW


@TOWERS
def test_threads_that_decode_take_time_off_a_gpu_job_and_a_bounded_memory(step):
    job = {"gpu": True, "views": 100}
    assert grown(seconds, step, job, job | {"decoders": 8}) < 0
    assert grown(seconds, step, job, job | {"threads": 8}) == 0
    memory = grown(peak_mb, step, job | {"decoders": 8}, job | {"decoders": 16})
    # an image that waits for each, and one in work, not four that wait
    assert 1e6 * memory < 3 * 16 * 100 * VIEW


@TOWERS
def test_a_gpu_job_pins_three_batches_of_whole_images(step):
    pinned = [
        1e6 * grown(peak_mb, step, {"views": 3}, {"views": 3, "gpu": True, "batch": batch})
        for batch in (256, 128, 1)
    ]
    steps = [pinned[0] - pinned[1], pinned[1] - pinned[2]]
    assert steps == pytest.approx([3 * (255 - 126) * VIEW, 3 * (126 - 3) * VIEW], rel=0.001)


def test_a_tower_decodes_by_its_own_threads_and_takes_large_batches_on_a_gpu_alone(study):
    study["extraction"] |= {"decode_threads": 5}
    sizes = {gpu: size_of(study, 20, None, None, gpu) for gpu in (False, True)}
    assert {gpu: (size.decoders, size.batch) for gpu, size in sizes.items()} == {
        False: (study["threads"], 8),
        True: (5, 256),
    }
    study["extraction"] |= {"batch_size": 6}
    assert [size_of(study, 20, None, None, gpu).batch for gpu in (False, True)] == [6, 6]


def test_an_index_of_neighbours_takes_time_as_the_images_grow_and_holds_no_embeddings():
    small, large = ({"images": n, "shards": n // 5000} for n in (160_000, IMAGENET))
    times = [seconds("find_neighbours", replace(SIZE, **size)) for size in (small, large)]
    ratio = IMAGENET / 160_000
    assert ratio**0.9 < times[1] / times[0] < ratio**1.1
    memory = 1e6 * grown(peak_mb, "find_neighbours", small, large)
    assert memory < SIZE.space_dim * (IMAGENET - 160_000)  # a quarter of the embeddings


def test_a_wide_translator_takes_the_memory_of_its_weights_gradients_and_moments():
    weights = 2**14 * (2**14 + 2 * SIZE.feature_dim)
    memory = grown(peak_mb, "train_translator", {"width": 256}, {"width": 2**14})
    assert 1e6 * memory > 4 * 4 * weights


def test_a_size_says_what_the_study_and_its_entries_say(study):
    model, space = (next(iter(registry.values())) for registry in entries(study))
    size = size_of(study, 20, model, space)
    rows = 20 * study["extraction"]["views"]
    assert (size.images, size.rows, size.shard_rows) == (20, rows, rows)
    assert (size.feature_dim, size.classes, size.null_dim, size.space_dim) == (1280, 1000, 280, 384)
    assert (size.parameters_m, size.gmacs, size.assumed) == (4.65, 0.385, False)
    assert size.cases == 15  # dimensions 8, 24, 64, 128 and 280, each in three subspaces
    assert size_of(study, 20, None, space).parameters_m == space.parameters_m
    assert size_of(study, 20, None, None).parameters_m == 0


def test_a_model_that_no_registry_knows_is_taken_for_a_vit_l(study):
    size = size_of(study, 20, ModelEntry(source="timm", id="resnet18.a1_in1k"), None)
    assert size.assumed and (size.parameters_m, size.gmacs) == (304.3, 61.6)


def test_images_of_a_table_are_its_rows_as_far_as_they_are_drawn(study, tmp_path):
    assert expected_images(study, tmp_path) == 20
    pd.DataFrame({"path": [f"{n}.jpg" for n in range(5000)]}).to_parquet(tmp_path / "t.parquet")
    for per_class, images in ((None, 5000), (2, 2000)):
        known = of(study, table=str(tmp_path / "t.parquet"), per_class=per_class)
        assert expected_images(known, tmp_path) == images


@pytest.mark.parametrize("below", [[""], ["train", "val"]])
@pytest.mark.parametrize("per_class", [None, 2])
def test_images_of_a_folder_are_told_from_a_few_class_folders(study, tmp_path, below, per_class):
    for part in below:
        for label in range(40):
            folder = tmp_path / "photos" / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}.jpg").touch()
    photos = of(study, source="folder", root=str(tmp_path / "photos"), per_class=per_class)
    assert expected_images(photos, tmp_path) == len(below) * 40 * (per_class or 3)


@pytest.mark.parametrize("per_class", [None, 2])
def test_images_of_archives_are_told_from_the_beginnings_of_some(study, tmp_path, per_class):
    names = [f"{row:04d}.{ending}" for row in range(2000) for ending in ("cls", "jpg")]
    for number in range(3):
        pack(tmp_path / f"{number}.tar", dict.fromkeys(names, b"x" * 700))
    for number in range(20):
        write_rows(tmp_path / f"{number}.parquet", [b"x"] * 50, [0] * 50)
    pack(tmp_path / "small.tar", {"a.jpg": b"x", "b.JPEG": b"x", "c.txt": b"x"})
    (tmp_path / "cut.tar").write_bytes(b"x" * 999)
    for pattern, images in {
        "?.tar": 6000,
        "*.parquet": 1000,
        "small.tar": 2,
        "cut.tar": IMAGENET if per_class is None else 2000,
    }.items():
        known = of(study, source="archive", root=str(tmp_path), archives=[pattern])
        known = of(known, per_class=per_class)
        expected = min(images, 2 * 1000) if per_class else images
        assert expected_images(known, tmp_path) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("per_class", "images"), [(None, IMAGENET), (10, 10_000)])
@pytest.mark.parametrize("source", ["folder", "table", "archive"])
def test_data_that_is_not_here_counts_as_imagenet(study, tmp_path, per_class, images, source):
    absent = {"root": "not/here", "table": "not/here.csv", "archives": ["*.tar"]}
    known = of(study, source=source, per_class=per_class, **absent)
    assert expected_images(known, tmp_path) == images


def test_the_bytes_of_a_study_are_those_of_its_jobs(study):
    study["extraction"] |= {"views": 9}
    models, spaces = entries(study)
    whole = study_bytes(study, 1000, models, spaces)
    sizes = [size_of(study, 1000, model, None) for model in models.values()]
    of_features = sum(disk_bytes("extract_features", size) for size in sizes)
    assert of_features < whole < 10 * of_features
    one = {study["models"][0]: models[study["models"][0]]}
    assert study_bytes(study, 1000, one, spaces) < whole
    assert study_bytes(study, 10_000, models, spaces) > 5 * whole


def test_costs_are_light():
    """Snakemake imports them at every parse, in every job of a cluster."""
    heavy = "{'torch', 'pandas', 'numpy', 'pyarrow'}"
    probe = f"import sys, singflow.planning.costs; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True) == "set()\n"


def test_labels_and_concepts_are_counted_in_their_files(study):
    size = size_of(study, 10_000, None, None)
    assert size.labels == len(pd.read_csv(ROOT / "config/vocab/imagenet_1k.csv")) == 1000
    assert size.concepts == len(Path(study["concepts"]["vocabulary"]).read_text().split("\n")) - 1
