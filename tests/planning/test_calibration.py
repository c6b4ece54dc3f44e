from pathlib import Path

import pytest

from singflow.config.registry import resolve_models, resolve_spaces
from singflow.planning.calibration import JOB_MB, Calibration, Used, calibrate, read_reports
from singflow.planning.costs import peak_mb, seconds, size_of
from tests.planning.test_plan import MODEL, TSV, finish, job, planner
from tests.project import ROOT
from tests.refusals import refused

IMAGES = 40_000
REGISTRIES = Path("config/models.yaml"), Path("config/spaces.yaml")
REPORT = """,JobID,RuleName,NCPUS,Elapsed_sec,TotalCPU_sec,MaxRSS_MB,RequestedMem_MB
0,7.0,rule_extract_features_wildcards_tiny_00000,2,100,150,1000,4000
1,8_2.0,rule_extract_features,2,100.0,50.0,2000.0,4000.0
2,9.0,rule_model,4,50,100,500,8000
3,10.0,,4,50,100,500,8000
"""


@pytest.fixture
def pilot(study, tmp_path):
    """A study that has run as it was reckoned, but for what a test writes."""
    folder = tmp_path / "pilot"
    finish(folder, IMAGES, 1)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return folder


def size(study, step, gpu=False):
    model = resolve_models("config/models.yaml", [MODEL])[MODEL]
    space = resolve_spaces("config/spaces.yaml", study["spaces"])["conse_minilm"]
    return size_of(study, IMAGES, model, None if step.startswith("extract") else space, gpu)


def took(pilot, place, seconds, megabytes):
    path = pilot / f"benchmarks/{place}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TSV.format(seconds, megabytes if megabytes == "-" else megabytes * 1e6 / 2**20))


def test_a_step_is_off_by_what_its_jobs_took_over_what_was_reckoned(study, pilot):
    expected = size(study, step := "extract_features")
    took(pilot, f"{step}/{MODEL}/00000", 3 * seconds(step, expected), 0.5 * peak_mb(step, expected))
    took(pilot, "resolve_study", 9, 900)  # which only starts, and tells nothing
    other, expected = "measure_scores", size(study, "")
    took(pilot, f"{other}/conse_minilm/{MODEL}", 2 * seconds(other, expected), "-")
    found = calibrate(pilot, REGISTRIES, False, {})
    assert found[step] == Calibration(1, pytest.approx(3), pytest.approx(0.5))
    assert found["resolve_study"] == Calibration(1, None, None)
    assert found[other] == Calibration(1, pytest.approx(2), None)
    # Slurm tells the memory that was not measured
    used = {other: Used(1, 0.0, 1.5 * peak_mb(other, expected) + JOB_MB, 0.0)}
    assert calibrate(pilot, REGISTRIES, False, used)[other].megabytes == pytest.approx(1.5)


def test_a_cpu_tells_nothing_of_a_gpu(study, pilot):
    step = "extract_features"
    took(pilot, f"{step}/{MODEL}/00000", 2 * seconds(step, size(study, step, gpu=True)), "-")
    assert calibrate(pilot, REGISTRIES, True, {})[step].seconds == pytest.approx(2)
    path = pilot / "params.yaml"
    path.write_text(path.read_text().replace("device: auto", "device: cpu"))
    assert calibrate(pilot, REGISTRIES, True, {}) == {}
    assert step in calibrate(pilot, REGISTRIES, False, {})


def test_a_plan_multiplies_by_it_and_says_so(study, tmp_path):
    known = {"fit_projector": Calibration(3, 2.0, None)}
    planners = [planner(study, tmp_path, known=found) for found in (None, known)]
    said = (("fit_projector", 2, "calibrated"), ("extract_head", 1, "estimated"))
    for step, times, source in said:
        before, after = (plan.estimate(job(tmp_path, step, model=MODEL)) for plan in planners)
        assert (after.seconds, after.source) == (times * before.seconds, source)
        assert after.peak_mb == before.peak_mb


def test_efficiency_reports_are_summed_by_step(tmp_path):
    path = tmp_path / "efficiency_report_x.csv"
    path.write_text(REPORT)
    found = read_reports([path])
    megabyte = 2**20 / 1e6
    assert found["extract_features"] == Used(2, 4000 * megabyte, 2000 * megabyte, 0.5)
    assert set(found) == {"extract_features", "model"}
    path.write_text(REPORT.replace("RuleName", "JobName"))
    refused(r"efficiency_report_x\.csv: not an efficiency report", read_reports, [path])


def test_a_folder_without_benchmarks_is_refused(pilot, tmp_path):
    none = "pilot: holds no benchmarks/: run the study with Snakemake first"
    for folder, message in ((pilot, none), (tmp_path / "absent", r"absent/params\.yaml")):
        refused(message, calibrate, folder, REGISTRIES, False, {})
