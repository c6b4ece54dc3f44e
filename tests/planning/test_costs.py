from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml

from singflow.analyses.probes import IN_MEMORY
from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.parallel import AHEAD
from singflow.planning import costs
from singflow.planning.costs import IMAGENET, Size, Term, disk_bytes, peak_mb, seconds, size_of
from singflow.study import with_defaults
from tests.data.archives import pack, write_rows
from tests.project import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STEPS = list(STAGES)


def under(**sections):
    """A study with these keys of sections."""
    study = with_defaults({})
    return {**study, **{name: study[name] | keys for name, keys in sections.items()}}


SIZE = Size(images=10_000, parameters_m=25.56, gmacs=4.09, steered=1000)
TOWERS = ("extract_features", "embed_images")


def entries(study):
    models = resolve_models("config/models.yaml", study["models"])
    return models, resolve_spaces("config/spaces.yaml", study["spaces"])


def grown(cost, step, small, large):
    return cost(step, replace(SIZE, **large)) - cost(step, replace(SIZE, **small))


def test_a_cost_is_a_steps_and_a_step_without_one_costs_what_others_like_it_do():
    assert set(costs.COSTS) | set(costs.WRITTEN) <= {*STEPS, "*", "plot_*"}
    for cost in (seconds, peak_mb, disk_bytes):
        assert cost("plot_another", SIZE) == cost("plot_hidden_texts", SIZE)
        assert cost("measure_another", SIZE) > 0
    assert peak_mb("measure_another", SIZE) >= peak_mb("validate_null_space", SIZE)


def test_the_artifacts_of_a_step_tell_its_jobs_apart_as_the_rules_do():
    for step in {*costs.WRITTEN} - {"*", "plot_*"}:
        matrix = set(STAGES[step].get("matrix", {}))
        assert set(costs.wildcards(step)) == matrix & {"model", "space", "kind", "shard"}, step


@pytest.mark.parametrize("step", STEPS)
def test_no_cost_falls_when_a_study_grows_or_rises_with_shards_cores_or_a_gpu(step):
    fields = "images views feature_dim parameters_m gmacs steered concepts models"
    larger_sizes = {field: {field: 3 * getattr(SIZE, field)} for field in fields.split()}
    epochs = 3 * SIZE.study["training"]["epochs"]
    larger_sizes["epochs"] = {"study": under(training={"epochs": epochs})}
    for field, change in larger_sizes.items():
        larger = replace(SIZE, **change)
        for cost in (seconds, peak_mb, disk_bytes):
            assert 0 <= cost(step, SIZE) <= cost(step, larger), field
    assert peak_mb(step, replace(SIZE, shards=10)) <= peak_mb(step, SIZE)
    for more in ({"shards": 10}, {"gpu": True}, {"threads": 8}):
        assert seconds(step, replace(SIZE, **more)) <= seconds(step, SIZE), more


def test_memory_grows_by_what_a_job_holds():
    def bytes_more(step, small, large):
        return 1e6 * grown(peak_mb, step, small, large)

    few, many = ({"images": n, "shards": n // 5000} for n in (160_000, IMAGENET))
    assert 0 < bytes_more("measure_evidence", few, many) <= 400 * (IMAGENET - 160_000)
    weights_gradients_and_two_moments = 4 * 4 * 2**14 * (2**14 + 2 * SIZE.feature_dim)
    widths = [{"study": under(training={"width": width})} for width in (256, 2**14)]
    assert bytes_more("train_translator", *widths) > weights_gradients_and_two_moments
    for step in TOWERS:
        job = {"images": 20, "threads": 2, "feature_dim": 1, "space_dim": 1}
        assert bytes_more(step, job, job | {"views": 100}) > 99 * 2 * AHEAD * costs.VIEW
        job = {"gpu": True, "views": 100}
        decoding = bytes_more(step, job | {"decoders": 8}, job | {"decoders": 16})
        # one image waits for each thread and one is in work, not four that wait
        assert decoding < 3 * 16 * 100 * costs.VIEW
        sizes = [{"views": 3, "gpu": True, "batch": batch} for batch in (1, 128, 256)]
        pinned = [bytes_more(step, *pair) for pair in pairwise(sizes)]
        three_batches_of_whole_images = [3 * (126 - 3) * costs.VIEW, 3 * (255 - 126) * costs.VIEW]
        assert pinned == pytest.approx(three_batches_of_whole_images, rel=0.001)


def test_time_grows_as_the_work_of_a_job():
    sizes = [replace(SIZE, images=n) for n in (1, 500, 1000, 10_000, 20_000)]
    none, few, twice, many, more = (seconds("measure_evidence", size) for size in sizes)
    assert twice - none > 2.9 * (few - none)  # kernels grow with the images
    assert more < 1.7 * many  # sums do not
    for step in TOWERS:
        one, ten = (grown(seconds, step, {"images": 1}, {"shards": n}) for n in (1, 10))
        assert one == pytest.approx(10 * ten, rel=0.01)
        job = {"gpu": True, "views": 100}
        assert grown(seconds, step, job, job | {"decoders": 8}) < 0
        assert grown(seconds, step, job, job | {"threads": 8}) == 0


def test_disk_takes_the_bytes_of_the_tensors_and_shards_share_them():
    assert disk_bytes("extract_features", SIZE) == 10_000 * (SIZE.feature_dim * 4 + 8 + 4)
    for step in TOWERS:
        assert disk_bytes(step, SIZE) == 10 * disk_bytes(step, replace(SIZE, shards=10))


def test_the_images_of_a_reference_take_time_and_memory_and_write_nothing():
    beside = {"reference": (3 * SIZE.images, SIZE.shards)}
    for step in ("measure_evidence", "summarize"):
        assert grown(seconds, step, {}, beside) > 0 and grown(peak_mb, step, {}, beside) > 0
        assert grown(disk_bytes, step, {}, beside) == 0


def test_a_driver_counts_numbers_lengths_and_choices_of_the_study_up_to_a_limit():
    study = under(probe={"alphas": [0.5, 0.25], "classifier": "ridge"}, summary={"resamples": 300})
    size = replace(SIZE, study=study)
    assert size.of("probe.alphas*summary.resamples/images") == 2 * 300 / 10_000
    assert (size.of("probe.classifier=ridge"), size.of("probe.classifier=logistic")) == (1, 0)
    term = Term("images*feature_dim", 1.0, 0.0, most=3.0)
    assert [term.times(replace(SIZE, images=n)) for n in (1000, 10_000)] == [2.048, 3.0]
    (held,) = {term.most for term in costs.COSTS["probe_principal"]} - {float("inf")}
    assert held == pytest.approx(IN_MEMORY / 1e6, rel=0.001)


def test_a_logistic_probe_holds_the_numbers_of_each_of_two_fits_up_to_a_limit():
    def held(images):  # beyond a job of no images
        small, large = (
            [peak_mb("probe_principal", replace(SIZE, images=n, study=study)) for n in (0, images)]
            for study in (under(probe={"classifier": kind}) for kind in ("ridge", "logistic"))
        )
        return (large[1] - large[0]) - (small[1] - small[0])

    wide, narrow = (width + SIZE.labels for width in (SIZE.feature_dim, SIZE.space_dim))
    each = held(10_000) / (10_000 * (wide + narrow))
    assert held(60_000) == pytest.approx(each * (IN_MEMORY + 60_000 * narrow), rel=0.001)
    assert held(IMAGENET) == pytest.approx(each * 2 * IN_MEMORY, rel=0.001)


def test_a_tower_decodes_by_its_own_threads_and_takes_large_batches_on_a_gpu_alone(study):
    study["extraction"] |= {"decode_threads": 5}
    sizes = {gpu: size_of(study, 20, None, None, gpu) for gpu in (False, True)}
    assert {gpu: (size.decoders, size.batch) for gpu, size in sizes.items()} == {
        False: (study["threads"], 8),
        True: (5, 256),
    }
    study["extraction"] |= {"batch_size": 6}
    assert [size_of(study, 20, None, None, gpu).batch for gpu in (False, True)] == [6, 6]


def test_a_size_says_what_the_study_its_entries_and_its_lists_say_and_else_takes_a_vit_l(study):
    model, space = (next(iter(registry.values())) for registry in entries(study))
    size = size_of(study, 20, model, space)
    rows = 20 * study["extraction"]["views"]
    assert (size.images, size.rows, size.shard_rows) == (20, rows, rows)
    assert (size.feature_dim, size.classes, size.null_dim, size.space_dim) == (1280, 1000, 280, 384)
    assert (size.parameters_m, size.gmacs, size.assumed) == (4.65, 0.385, False)
    assert size_of(study, 20, None, space).parameters_m == space.parameters_m
    assert size_of(study, 20, None, None).parameters_m == 0
    unknown = ModelEntry(source="timm", id="resnet18.a1_in1k")
    size = size_of(study, 10_000, unknown, None)
    assert size.assumed and (size.parameters_m, size.gmacs) == (304.3, 61.6)
    assert size.labels == len(pd.read_csv(ROOT / "config/vocab/imagenet_1k.csv")) == 1000
    assert size.concepts == len(Path(study["concepts"]["vocabulary"]).read_text().split("\n")) - 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images in every form in which a study takes them, of few bytes."""
    root = tmp_path_factory.mktemp("data")
    pd.DataFrame({"path": [f"{n}.jpg" for n in range(5000)]}).to_parquet(root / "5000.parquet")
    classes = [f"class{label}/{number}.jpg" for label in range(40) for number in range(3)]
    files = [f"{part}/{name}" for part in ("plain", "split/train", "split/val") for name in classes]
    for name in [*files, *(f"flat/val/{n}.JPEG" for n in range(2100)), "flat/val/readme.txt"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    names = [f"{row:04d}.{ending}" for row in range(2000) for ending in ("cls", "jpg")]
    for number in range(3):
        pack(root / f"{number}.tar", dict.fromkeys(names, b"x" * 700))
    for number in range(20):
        write_rows(root / f"rows{number}.parquet", [b"x"] * 50, [0] * 50)
    pack(root / "small.tar", {"a.jpg": b"x", "b.JPEG": b"x", "c.txt": b"x"})
    (root / "cut.tar").write_bytes(b"x" * 999)
    return root


def test_images_are_counted_or_told_from_some_of_them(study, data, tmp_path):
    for source, given, images, drawn in (
        ("table", {"table": "config/vocab/packaged.csv"}, 20, 20),
        ("table", {"table": "{data}/5000.parquet"}, 5000, 2000),
        ("folder", {"root": "{data}/plain"}, 120, 80),
        ("folder", {"root": "{data}/split"}, 240, 160),
        ("folder", {"root": "{data}/flat"}, 2100, 2000),
        ("folder", {"root": "{data}/flat/val"}, 2100, 2000),
        ("archive", {"root": "{data}", "archives": ["?.tar"]}, 6000, 2000),
        ("archive", {"root": "{data}", "archives": ["rows*.parquet"]}, 1000, 1000),
        ("archive", {"root": "{data}", "archives": ["small.tar"]}, 2, 2),
        # data that is not here, or not readable, counts as ImageNet
        ("archive", {"root": "{data}", "archives": ["cut.tar"]}, IMAGENET, 2000),
        ("archive", {"root": "not/here", "archives": ["*.tar"]}, IMAGENET, 2000),
        ("table", {"table": "not/here.csv"}, IMAGENET, 2000),
        ("folder", {"root": "not/here"}, IMAGENET, 2000),
    ):
        for key in given.keys() & {"root", "table"}:
            given = given | {key: given[key].format(data=data)}
        for per_class, expected in ((None, images), (2, drawn)):
            own = given | {"source": source, "per_class": per_class}
            content = study | {"data": study["data"] | own}
            assert costs.expected_images(content, tmp_path) == pytest.approx(expected, rel=0.02)
            assert bool(costs.images_here(content, tmp_path)) == (images != IMAGENET)


def test_the_bytes_of_a_study_are_those_of_its_jobs(study):
    study["extraction"] |= {"views": 9}
    models, spaces = entries(study)
    whole = costs.study_bytes(study, 1000, models, spaces)
    sizes = [size_of(study, 1000, model, None) for model in models.values()]
    of_features = sum(disk_bytes("extract_features", size) for size in sizes)
    assert of_features < whole < 10 * of_features
    one = {study["models"][0]: models[study["models"][0]]}
    assert costs.study_bytes(study, 1000, one, spaces) < whole
    assert costs.study_bytes(study, 10_000, models, spaces) > 5 * whole
