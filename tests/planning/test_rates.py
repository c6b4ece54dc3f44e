import numpy as np
import pandas as pd
import pytest

from singflow.config.registry import ModelEntry, resolve_models, resolve_spaces
from singflow.planning.calibration import Calibration
from singflow.planning.costs import peak_mb, seconds, size_of
from singflow.planning.plan import cost_table, order_of_magnitude, precision_table
from singflow.planning.rates import COLUMNS, read_rates
from tests.planning.test_plan import MODEL, job, planner
from tests.refusals import refused

CARD = "NVIDIA H100 80GB HBM3"
ID = "tf_efficientnet_lite0.in1k"  # of MODEL
SHARD = {"shard": "00000"}
ROW = {"device": CARD, "tower": "wide", "source": "timm", "gmacs": 10.0, "precision": "float32"}
ROW |= {"path": "product", "batch": 256, "decode_threads": 8, "on": "GPU"}
ROW = dict.fromkeys(COLUMNS, "") | ROW


def write(file, *rows):
    pd.DataFrame([ROW | row for row in rows]).to_csv(file, index=False)
    return file


@pytest.fixture
def rates(tmp_path):
    """Rates of three towers on a GPU, and what is none of them."""
    rows = [
        {"tower": ID, "gmacs": 0.385, "images_per_s": 50.0},
        {"images_per_s": 200.0},
        {"tower": "wider", "gmacs": 20.0, "images_per_s": 150.0},
        {"tower": ID, "path": "timm", "images_per_s": 900.0},
        {"tower": ID, "path": "dataloader", "images_per_s": 9.0, "busy": 0.5},
        {"tower": ID, "gmacs": 0.385, "precision": "bfloat16", "images_per_s": 100.0},
        {"precision": "float16", "note": "out of memory"},
        {"device": "EPYC", "on": "CPU", "decode_threads": 2, "images_per_s": 4.0},
    ]
    return write(tmp_path / "rates.csv", *rows)


def tower(identifier, source="timm"):
    return ModelEntry(source=source, id=identifier)


def test_a_tower_runs_at_its_own_rate_and_another_one_at_the_median_of_multiply_adds(rates):
    found = read_rates(rates, True, 2)
    assert found.measured == f"{rates}, {CARD}, 8 threads that decode"
    assert found.of(tower(ID), 0.385, "float32") == 50.0
    # 0.385 * 50, 10 * 200 and 20 * 150 multiply-adds: the median is 2000
    for other in (tower("other.tag"), tower("wide.tag", "torchvision")):
        assert found.of(other, 4.0, "float32") == 500.0
    assert found.of(tower(ID), 0.385, "bfloat16") == 100.0
    assert np.isnan(found.of(tower(ID), 0.385, "float16"))
    (space,) = resolve_spaces("config/spaces.yaml", ["conse_minilm"]).values()
    assert found.of(space, 0.86, "float32") == pytest.approx(2000 / 0.86)
    # a CPU runs at the rates of as many threads
    assert read_rates(rates, False, 2).of(tower("wide.tag"), 10.0, "float32") == 4.0
    assert read_rates(rates, False, 4) is None
    assert read_rates(write(rates, {"images_per_s": 1.0, "path": "timm"}), True, 2) is None


def test_the_hours_on_a_gpu_are_those_of_the_rates(study, rates, tmp_path):
    rows = 20 * study["extraction"]["views"]
    plan = planner(study, tmp_path, True, rates=read_rates(rates, True, 2))
    extract = job(tmp_path, "extract_features", model=MODEL, **SHARD)
    embed = job(tmp_path, "embed_images", space="conse_minilm", **SHARD)
    starts = 5 + 0.015 * 4.65, 5 + 0.015 * 6.09  # weights included
    expected = starts[0] + rows / 50, starts[1] + rows * 0.86 / 2000
    for one, taken in zip((extract, embed), expected, strict=True):
        estimate = plan.estimate(one)
        assert estimate.seconds == pytest.approx(taken) and estimate.source == "estimated"
    entry = resolve_models("config/models.yaml", [MODEL])[MODEL]
    size = size_of(study, 20, entry, None, True)
    assert plan.estimate(extract).peak_mb == peak_mb("extract_features", size)
    table = precision_table([extract, embed, extract], plan).set_index("step")
    of_features = [2 * expected[0], np.nan, np.nan, 2 * (starts[0] + rows / 100)]
    of_embeddings = [expected[1], np.nan, np.nan, starts[1] + rows * 0.86 / 38.5]
    np.testing.assert_allclose(table.to_numpy(float) * 3600, [of_features, of_embeddings])
    assert list(table) == ["float32", "tf32", "float16", "bfloat16"]
    assert list(table.index) == ["extract_features", "embed_images"]
    study["extraction"] |= {"precision": "bfloat16"}
    assert plan.estimate(extract).seconds == pytest.approx(starts[0] + rows / 100)
    assert precision_table([job(tmp_path, "summarize", "x")], plan).empty


def test_without_a_measurement_the_hours_of_a_gpu_are_marked_as_a_guess(study, rates, tmp_path):
    pair = {"space": "conse_minilm", "model": MODEL}
    steps = {"extract_features": {"model": MODEL} | SHARD, "train_translator": pair}
    steps |= {"render_pictures": pair, "fit_projector": {"model": MODEL}}
    jobs = [job(tmp_path, step, **wildcards) for step, wildcards in steps.items()]

    def unmeasured(gpu, *arguments):
        """Steps whose hours in a table of costs are those of costs.toml."""
        plan = planner(study, tmp_path, gpu, *arguments)
        table = cost_table(jobs, jobs, plan, steps).set_index("step")
        assert table.notna().all(axis=None) and (table["longest h"] > 0).all()
        assert (table["time and memory"] == "1 unmeasured").equals(table["guess"])
        for one in jobs:
            size = plan._size(one.wildcards, gpu and one.gpu)
            guess = pytest.approx(seconds(one.step, size) / 3600)
            assert table.at[one.step, "longest h"] == guess or not table.at[one.step, "guess"]
        return set(table.index[table["guess"]])

    assert unmeasured(True) == steps.keys() - {"fit_projector"} and unmeasured(False) == set()
    study["extraction"] |= {"precision": "tf32"}  # of which a median at another tells nothing
    assert unmeasured(True, {}, read_rates(rates, True, 2)) == unmeasured(True)
    # a pilot on the card tells more than a rate does
    study["extraction"] |= {"precision": "float32"}
    known = {"extract_features": Calibration(1, 3.0, None)}
    both = planner(study, tmp_path, True, known, read_rates(rates, True, 2))
    size = size_of(study, 20, resolve_models("config/models.yaml", [MODEL])[MODEL], None, True)
    estimate = both.estimate(jobs[0])
    wanted = (3 * seconds("extract_features", size), "calibrated")
    assert (estimate.seconds, estimate.source) == wanted


def test_an_order_of_magnitude_is_the_nearest_power_of_ten_and_no_measurement():
    shown = {4.0: "~10", 2.0: "~1", 0.0004: "~0.001", 3.3e4: "~100000", 1.0: "~1"}
    assert {hours: order_of_magnitude(hours) for hours in shown} == shown


NO_TABLE = "not a table of rates of benchmarks/gpu.py"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"images_per_s": 0}, r"images_per_s is 0\.0, not a positive number"),
        ({"decode_threads": 5000 * "9"}, "decode_threads is inf, not a positive number"),
        ({"images_per_s": "fast"}, NO_TABLE),
        ({"precision": "fp8"}, "precision is 'fp8', not one of float32, tf32, float16, bfloat16"),
        ({"device": "NVIDIA A10"}, f"rates of NVIDIA A10 and {CARD}: keep the rows of one device"),
        *((content, NO_TABLE) for content in (b"", b"device,tower\nx,y\n", b"\x00\xff", None)),
    ],
)
def test_a_file_that_is_damaged_or_no_table_is_refused_by_name(tmp_path, wrong, said):
    path, right = tmp_path / "rates.csv", {"images_per_s": 1.0}
    if isinstance(wrong, dict):
        write(path, right, right | wrong)
    elif wrong is not None:
        path.write_bytes(wrong)
    refused(rf"rates\.csv: {said}", read_rates, path, True, 2)
