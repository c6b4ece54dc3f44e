import re
import runpy
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml

from singflow.errors import InputError
from tests.project import ROOT

SCRIPT = ROOT / "benchmarks/memory.py"
STEPS = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@pytest.fixture(scope="module")
def finished():
    """The benchmark with few images and a narrow classifier, under a limit that no process could keep."""
    flags = ["--images", "40", "--classifier", "torchvision/shufflenet_v2_x0_5.IMAGENET1K_V1", "--limit_gb", "0.01"]
    return subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True)


def test_every_step_is_measured(finished):
    header, *rows = [line.split() for line in finished.stdout.splitlines()]
    assert header[0] == "step" and [row[0] for row in rows] == STEPS, finished.stderr[-3000:]
    for step, *figures in rows:
        peak, model, besides, seconds = map(float, figures)
        assert peak > 0 and model >= 0 and besides >= 0 and seconds > 0, step
        assert (model > 0) == step.startswith(("extract_", "embed_")), step
        assert abs(model + besides - peak) <= 0.02, step


def test_a_limit_that_is_too_small_fails(finished):
    assert finished.returncode == 1
    assert "above the limit of 0.01 GB" in finished.stderr


def test_the_verdict_names_the_step_that_needs_most(capsys):
    judge = runpy.run_path(str(SCRIPT))["judge"]
    table = pd.DataFrame({"step": ["first", "second", "third"], "besides GiB": [0.5, 3.7, 1.0]})
    judge(table, 4.0)
    assert capsys.readouterr().out.startswith("second needs most besides its model: 3.70 GiB")
    with pytest.raises(InputError, match="second"):
        judge(table, 3.9)  # GB: 3.63 GiB


@pytest.mark.parametrize(("limit", "status"), [("1", 0), ("0.01", 1)])
def test_the_scan_of_a_large_vocabulary_is_held_to_its_limit(limit, status):
    flags = ["--images", "60", "--labels", "4", "--concepts", "1100", "--threads", "1", "--limit_gb", limit]
    finished = subprocess.run([sys.executable, ROOT / "benchmarks/scan.py", *flags], capture_output=True, text=True)
    assert finished.returncode == status, finished.stderr[-3000:]
    assert finished.stdout.startswith("peak 0.") and "beyond the text embeddings (0.00 GB)" in finished.stdout
    assert ("above the limit of 0.01 GB" in finished.stderr) == bool(status)


@pytest.mark.parametrize(("limit", "status"), [("60", 0), ("0.001", 1)])
def test_the_start_of_scripts_is_held_to_its_limit(limit, status):
    flags = ["--scripts", "resume", "import_translator", "--repeats", "2", "--limit_s", limit]
    finished = subprocess.run([sys.executable, ROOT / "benchmarks/startup.py", *flags], capture_output=True, text=True)
    assert finished.returncode == status, finished.stderr[-3000:]
    _, *rows, verdict = finished.stdout.splitlines()
    table = {row[:18].strip(): row[18:].split() for row in rows}
    assert list(table) == ["python -c pass", "import pandas", "resume", "import_translator"]
    for minimum, median, relative, *_ in table.values():
        assert 0 < float(minimum) <= float(median) and float(relative) >= 0
    assert [row[3:] for row in table.values()] == [[], [], [], ["torch"]]
    assert verdict == f"{1 - status} of 1 scripts without torch start within {limit} s"
    assert ("slower than 0.001 s: resume" in finished.stderr) == bool(status)


@pytest.mark.parametrize(("speedup", "status"), [("0", 0), ("1000", 1)])
def test_extraction_is_held_to_its_marks_and_its_opt_ins_state_their_errors(speedup, status):
    flags = ["--count", "6", "--batch_size", "2", "--repeats", "1", "--speedup", speedup, "--share", "0"]
    finished = subprocess.run([sys.executable, ROOT / "benchmarks/extraction.py", *flags], capture_output=True, text=True)
    assert finished.returncode == status, finished.stderr[-3000:]
    assert ("a mark is missed: 1000 times" in finished.stderr) == bool(status)
    rows = [re.split(r"\s{2,}| (?=[-\d])", line.strip()) for line in finished.stdout.splitlines()[1:7]]
    figures = {name: [float(figure) for figure in row if figure != "-"] for name, *row in rows}
    assert list(figures) == ["stock", "product", "decoding alone", "forward alone", "reduced decoding", "bfloat16"]
    assert all(seconds > 0 for row in figures.values() for seconds in row[:3])
    assert figures["stock"][3:] == [0, 0, 0] and len(figures["decoding alone"]) == 3
    assert 0 < figures["product"][3] < 1e-4 < figures["bfloat16"][4] < 0.1
    assert figures["product"][3] < figures["reduced decoding"][3] < 0.5


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return partial(runpy.run_path(str(ROOT / "benchmarks/growth.py"))["judge"], [10**4, 10**5, 10**6])


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_the_exponent_of_growth_is_found_beneath_a_start(judge, power):
    seconds = 3 + np.array([1.0, 10**power, 100**power])
    verdict = judge(seconds, np.full(3, 300.0), 100.0)
    assert verdict["exponent"] == pytest.approx(power)
    assert verdict["linear"] == (power <= 1)
    assert verdict["flat"] and verdict["B/image"] == 0


def test_memory_may_grow_by_the_tables_and_no_more(judge):
    seconds = np.array([1.0, 1.0, 1.0])
    within, beyond = (judge(seconds, np.array([300.0, 330.0, 300.0 + megabytes]), 100.0) for megabytes in (300, 500))
    assert (within["flat"], beyond["flat"]) == (True, False)
    assert beyond["B/image"] == pytest.approx(500e6 / 990_000)
    assert within["linear"] and np.isnan(within["exponent"])


def test_the_growth_of_real_steps_is_measured():
    flags = ["--rows", "200", "400", "800", "--shard", "200", "--features", "16", "--dims", "8", "--labels", "4"]
    flags += ["--steps", "build_manifest", "fit_projector", "fit_translator"]
    finished = subprocess.run([sys.executable, ROOT / "benchmarks/growth.py", *flags], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    rows = {line.split()[0]: line.split()[1:] for line in finished.stdout.splitlines()[1:-1]}
    assert list(rows) == ["build_manifest", "fit_projector", "fit_translator"]
    for row in rows.values():
        assert all(float(figure) > 0 for figure in row[:6]) and row[-2:] == ["True", "True"]
    assert finished.stdout.endswith("time grows no faster than the images, memory by no more than the tables\n")


NUMERICS = [
    "scoring: share of the machine's rate of products",
    "scoring: times faster than a batched version",
    "scoring: times faster than a loop over images",
    "scan: times faster than PyTorch",
    "scan: share of PyTorch's memory",
    "ridge path: times as long as one Ridge fit",
    "ridge path: times faster than a loop over Ridge",
    "ridge path: peak memory of streamed rows (GB)",
]


@pytest.mark.parametrize(("ease", "status"), [("1e6", 0), ("1e-6", 1)])
def test_every_figure_of_the_numerical_core_is_measured_and_held_to_its_mark(ease, status):
    sizes = {"images": 200, "features": 32, "null": 8, "dims": 16, "labels": 5, "concepts": 20, "alphas": 3, "rows": 5000, "square": 64}
    flags = [word for name, size in (sizes | {"repeats": 1, "threads": 1, "ease": ease}).items() for word in (f"--{name}", str(size))]
    command = [sys.executable, ROOT / "benchmarks/numerics.py", *flags]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == status, finished.stderr[-3000:]
    for name in NUMERICS:
        (line,) = [line.strip() for line in finished.stdout.splitlines() if line.strip().startswith(name)]
        value, _, _, reached = line.removeprefix(name).split()
        assert np.isfinite(float(value)) and (reached == "True" or status)
    assert finished.stdout.endswith("every mark is reached\n") == (status == 0)
    assert ("missed: scoring: share" in finished.stderr) == bool(status)


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks/kernels.py"))


def test_a_kernel_may_take_a_tenth_longer_a_row_and_the_bootstrap_alone_may_hold_its_table(kernels):
    rows = [10_000, 100_000, 1_000_000]

    def wrong(kernel, seconds, peaks):
        return kernels["judge"](pd.DataFrame({"kernel": kernel, "rows": rows, "s": seconds, "MB": peaks}), 0.1)

    assert wrong("scan", [0.02, 0.1, 1.09], [200.0, 210.0, 220.0]) == []
    assert wrong("scan", [0.02, 0.1, 1.2], [200.0] * 3) == ["scan takes 20 % longer a row at the largest size"]
    assert wrong("scan", [0.02, 0.1, 1.0], [200.0, 210.0, 300.0]) == ["scan needs 100 MB more at the largest size"]
    assert wrong("bootstrap", [0.02, 0.1, 1.0], [200.0, 210.0, 300.0]) == []
    assert wrong("bootstrap", [0.02, 0.1, 1.0], [200.0, 210.0, 600.0]) == ["bootstrap needs 400 MB more at the largest size"]


def test_the_growth_of_the_kernels_is_measured_and_drawn(tmp_path):
    plot = tmp_path / "growth.png"
    flags = ["--rows", "9000", "10000", "--repeats", "1", "--tolerance", "100", "--plot", plot]
    finished = subprocess.run([sys.executable, ROOT / "benchmarks/kernels.py", *flags], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    rows = [line.split() for line in finished.stdout.splitlines()[1:9]]
    assert [(row[0], row[1]) for row in rows] == [(k, n) for k in ("scoring", "ridge", "scan", "bootstrap") for n in ("9000", "10000")]
    assert all(float(figure) > 0 for row in rows for figure in row[2:])
    assert plot.read_bytes().startswith(b"\x89PNG")
