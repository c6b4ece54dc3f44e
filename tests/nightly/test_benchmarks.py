import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from singflow.artifacts.tensors import read_tensors, write_tensors
from singflow.errors import InputError
from singflow.towers.classifiers import load_classifier
from tests import warm
from tests.project import ROOT, Project
from tests.towers.models import entry_of

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STEPS = list(STAGES)
SMALL = ["--images", "40", "--classifier", "torchvision/shufflenet_v2_x0_5.IMAGENET1K_V1"]


def run(name, *flags, root=ROOT, status=0):
    """A benchmark as a program: its output and its log."""
    done = warm.run(root / f"benchmarks/{name}.py", *flags)
    assert done.returncode == status, done.stdout + done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Load a benchmark; the working folder is an empty one."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    return importlib.import_module


def held(log, *missed):
    """Check that a benchmark names just the figures that miss their marks."""
    (said,) = [line for line in log.splitlines() if line.startswith("error: missed: ")]
    for name, figure in zip(missed, said.removeprefix("error: missed: ").split("; "), strict=True):
        assert name in figure


def measured(steps, *flags):
    """Check the table of benchmarks/memory.py, run with a mark that no process can reach."""
    said, log = run("memory", *SMALL, "--ease", 0.001, *flags, status=1)
    header, *rows = [line.split() for line in said.splitlines()[: len(steps) + 1]]
    assert header[0] == "step" and sorted(row[0] for row in rows) == sorted(steps)
    for step, *figures in rows:
        peak, model, besides, seconds = map(float, figures)
        assert peak > 0 and model >= 0 and besides >= 0 and seconds > 0, step
        assert (model > 0) == step.startswith(("extract_", "embed_")), step
        assert abs(max(peak - model, 0) - besides) <= 0.02, step
    held(log, "GB besides its model, the most")


def test_steps_are_measured_and_a_mark_that_is_too_low_fails():
    steps = ["resolve_model", "extract_head"]
    measured(steps, "--steps", *reversed(steps))


def makers():
    """Pairs of steps of dvc.yaml: the second reads what the first writes."""

    def files(step, *kinds):
        stage = STAGES[step].get("do", STAGES[step])
        listed = [item for kind in kinds for item in stage.get(kind, [])]
        return {Path(name) for item in listed for name in ([item] if type(item) is str else item)}

    made = [(out, step) for step in STEPS for out in files(step, "outs", "metrics")]
    for reader in STEPS:
        for read in files(reader, "deps", "params"):
            for out, maker in made:
                if out.is_relative_to(read) or read.is_relative_to(out):
                    yield maker, reader


def test_the_first_job_of_every_step_is_listed_after_those_that_make_what_it_reads(load):
    load("memory").prepare(20, SMALL[-1])
    jobs = load("common").jobs
    listed, pairs = jobs(), set(makers())
    assert sorted(listed) == sorted(STEPS) and len(pairs) > 2 * len(STEPS)
    assert {("build_manifest", "resolve_study"), ("measure_evidence", "summarize")} < pairs
    place = {step: number for number, step in enumerate(listed)}
    assert [pair for pair in pairs if place[pair[0]] >= place[pair[1]]] == []
    firsts = {"--model": "model00", "--space": "conse_minilm", "--shard": "00000"}
    for step, job in listed.items():
        for flag, name in zip(job.command, job.command[1:], strict=False):
            assert firsts.get(flag, name) == name, step
    assert list(jobs(["summarize", "fit_projector"])) == ["fit_projector", "summarize"]
    with pytest.raises(InputError, match=r"--steps: dvc\.yaml has no fit_projektor: name some of "):
        jobs(["fit_projector", "fit_projektor"])


def test_a_space_is_widened_at_its_norms_and_results_are_copied_under_all_names(load):
    memory, common, generator, plain = load("memory"), load("common"), np.random.default_rng(0), {}
    for name, tensors in memory.WIDENED.items():
        made = {"emb": generator.standard_normal((3, 4)).astype(np.float32), "other": np.arange(3)}
        plain[name] = {tensor: made["emb" if "emb" in tensor else "other"] for tensor in tensors}
        write_tensors(common.path(name), plain[name], {"kind": "some"})
    memory.widen()
    for name, tensors in memory.WIDENED.items():
        wide, facts = read_tensors(common.path(name), tensors)
        for tensor, array in plain[name].items():
            assert wide[tensor].shape == ((3, 8) if "emb" in tensor else (3,))
            np.testing.assert_allclose(wide[tensor] @ wide[tensor].T, array @ array.T, rtol=1e-5)
        assert facts == {"kind": "some"}
    for file in map(Path, ("probes/first.json", "maps/first/0/a.png", "all/space/first.json")):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    names = ["first", "second", "third"]
    common.multiply(["probes/first.json", "maps/first", "all", "lost"], names)
    for name in names:
        for file in (f"probes/{name}.json", f"maps/{name}/0/a.png", f"all/space/{name}.json"):
            assert Path(file).read_text() == "{}"


def test_the_scan_of_a_large_vocabulary_is_held_to_its_mark():
    sizes = ["--images", 60, "--labels", 4, "--concepts", 1100, "--threads", 1]
    said, log = run("scan", *sizes, "--ease", 0.01, status=1)
    assert said.startswith("0.00 GB of text embeddings, ")
    held(log, "peak memory beyond texts and results")


def test_a_finished_study_is_made_up_in_a_copy_of_the_repository(load, monkeypatch, tmp_path):
    engines = load("engines")
    monkeypatch.setattr(engines, "ROOT", Project(tmp_path / "repository").folder)
    Path("copy").mkdir()
    monkeypatch.chdir("copy")
    assert engines.prepare(Path("config/studies/demo.yaml")) > 100
    for name in ("reference", "vocab"):
        assert Path("src/singflow/packaged", name).is_symlink(), name
        assert any(Path("src/singflow/packaged", name).iterdir()), name


def test_the_start_of_scripts_is_measured():
    scripts = ["summarize", "extract_features"]
    said, _ = run("startup", "--scripts", *scripts, "--repeats", 2, "--ease", 1000)
    _, *rows = said.splitlines()[:5]
    table = {" ".join(row.split()[:-3]): row.split()[-3:] for row in rows}
    assert list(table) == ["python -c pass", "import pandas", *scripts]
    for minimum, median, relative in table.values():
        assert 0 < float(minimum) <= float(median) and float(relative) >= 0


def test_extraction_is_held_to_its_marks_and_its_opt_ins_state_their_errors():
    sizes = ["--count", 4, "--batch_size", 2, "--threads", 1, "--repeats", 1]
    said, log = run("extraction", *sizes, "--ease", 0.001, status=1)
    held(log, "times the stock path's speed", "share of what the processor", "largest distance")
    rows = [re.split(r"\s{2,}| (?=[-\d])", line.strip()) for line in said.splitlines()[1:7]]
    figures = {name: [float(figure) for figure in row if figure != "-"] for name, *row in rows}
    alone = ["decoding alone", "forward alone"]
    assert list(figures) == ["stock", "product", *alone, "reduced decoding", "bfloat16"]
    assert all(seconds > 0 for row in figures.values() for seconds in row[:3])
    assert figures["stock"][3:] == [0, 0, 0] and len(figures["decoding alone"]) == 3
    assert 0 < figures["product"][3] < 1e-4 < figures["bfloat16"][4] < 0.1
    assert figures["product"][3] < figures["reduced decoding"][3] < 0.5


def test_tf32_is_the_nearest_of_its_numbers_and_ties_are_even(load):
    bits = np.random.default_rng(0).integers(0, 2**32, 10**5, dtype=np.uint32)
    ties = np.arange(2**12, 2**32, 2**13, dtype=np.uint32)
    numbers = np.concatenate([bits, ties, ties - 1, ties + 1]).view(np.float32)
    numbers = np.append(numbers[np.isfinite(numbers)], np.float32([0.0, -0.0]))
    wide = numbers.astype(np.float64)
    step = np.ldexp(1.0, np.maximum(np.frexp(wide)[1] - 1, -126) - 10)  # between TF32's numbers
    with np.errstate(over="ignore"):
        nearest = (np.rint(wide / step) * step).astype(np.float32)
    assert np.isinf(nearest).any() and (np.abs(nearest) == 2.0**-136).any()
    ends = np.float32([np.inf, -np.inf])
    found = load("extraction").round_to_tf32(torch.from_numpy(np.append(numbers, ends)))
    expected = np.append(nearest, ends).view(np.int32)  # so that -0 is not 0
    np.testing.assert_array_equal(found.view(torch.int32).numpy(), expected)
    assert load("extraction").round_to_tf32(torch.tensor([np.nan, -np.nan])).isnan().all()


def test_emulated_tf32_rounds_what_convolutions_and_linear_layers_multiply_and_no_more(load):
    extraction = load("extraction")
    classifier = load_classifier(entry_of("test_vit.r160_in1k"))
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    extraction.emulate_tf32(classifier)
    inputs = {}
    for name, module in classifier.model.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda _, seen, __, name=name: inputs.update({name: seen}))
    with torch.inference_mode():
        classifier(torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
    rounded = {
        name for name, (seen,) in inputs.items() if seen.equal(extraction.round_to_tf32(seen))
    }
    layers = re.compile(r"patch_embed\.proj|blocks\.\d\.(attn\.(qkv|proj)|mlp\.fc[12])")
    assert rounded == set(filter(layers.fullmatch, inputs)) and len(rounded) == 25
    for name, tensor in classifier.model.state_dict().items():
        weighs = name.removesuffix(".weight") in rounded
        expected = extraction.round_to_tf32(before[name]) if weighs else before[name]
        assert tensor.equal(expected) and weighs == (not tensor.equal(before[name])), name


def test_the_price_of_each_precision_is_told_in_degrees():
    sizes = ["--count", 6, "--models", "efficientnet_lite0", "--threads", 1]
    said, _ = run("extraction", *sizes, "--precisions", "tf32", "bfloat16")
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in said.splitlines()
        if line.startswith("|")
    ]
    table = pd.DataFrame(rows, columns=header).set_index("precision")
    assert list(table.index) == ["float32", "tf32", "bfloat16"]
    changes = table.loc[:, "features":"IS, translator kept"].map(
        lambda cell: [float(number) for number in cell.split(", ")]
    )
    assert changes.shape[1] == 4 and (changes.loc["float32"].map(max) == 0).all()
    others = changes.drop("float32")
    assert others.map(lambda cell: 0 < cell[0] <= cell[1]).all(axis=None)
    coarse, fine = (others["features"][name] for name in ("bfloat16", "tf32"))
    assert all(3 * error < most for error, most in zip(fine, coarse, strict=True))
    assert coarse[1] < 0.5 and others["IS"].map(max).max() < 1
    assert table["verdict"].nunique() == 1 and (table["same"] == "yes").all()


def test_a_verdict_that_differs_fails_and_a_path_without_a_class_is_refused(load, tmp_path):
    extraction = load("extraction")
    table = pd.DataFrame({"model": ["a", "a"], "precision": ["float32", "bfloat16"]})
    table["verdict"], table["same"] = ["meaning", "trace"], ["yes", "no"]
    extraction.judge_verdicts(table[:1])
    with pytest.raises(InputError, match=r"differs from that in float32: a in bfloat16: trace$"):
        extraction.judge_verdicts(table)
    flags, rows = extraction.Flags(images=tmp_path), pd.DataFrame({"path": ["n014/cat.jpg"]})
    with pytest.raises(InputError, match=r"the path n014/cat\.jpg names no class"):
        extraction.prepare(flags, tmp_path, rows, tmp_path)


def test_the_wait_of_a_stand_in_for_a_gpu_is_measured(load):
    sizes = ["--rates", 400, 800, "--seconds", 0.5, "--batch_size", 8, "--threads", 1]
    said, _ = run("pipeline", *sizes, "--ease", 100)
    header, *rows = said.splitlines()[:5]
    assert header.split()[:4] == ["images", "rate", "waited", "ms"]
    rows = [row.split() for row in rows]
    assert [row[0] for row in rows] == ["decoded", "decoded", "full", "reduced"]
    assert [row[1] for row in rows[:2]] == ["400", "800"]
    assert all(0 <= float(row[2]) < 1 and float(row[3]) > 0 for row in rows)
    for *_, ms, first, second in rows[2:]:  # the rate times the time of an image
        assert float(first) == pytest.approx(0.4 * float(ms), rel=0.02)
        assert float(second) == pytest.approx(0.8 * float(ms), rel=0.02)
    tower = load("pipeline").StandIn(1.0)
    tower.spans = [(1.0, 2.0), (2.5, 3.5), (3.5, 5.0)]
    assert tower.waited() == 0.125


def test_every_figure_of_the_numerical_core_is_measured_and_held_to_its_mark():
    sizes = {"images": 200, "features": 32, "null": 8, "dims": 16, "labels": 5, "concepts": 20}
    sizes |= {"alphas": 3, "rows": 5000, "square": 64, "evidence_images": 60, "draws": 3}
    sizes |= {"repeats": 1, "threads": 1, "ease": 1e6}
    said, _ = run("numerics", *(f"--{name}={size}" for name, size in sizes.items()))
    *_, table = said.partition("figure ")
    rows = re.findall(r"^ *(\w[\w ]*): .* (\S+) +[<>]= \S+ +True$", table, re.M)
    assert [part for part, _ in rows] == [
        *["scoring"] * 3, *["scan"] * 2, *["ridge path"] * 3, *["evidence"] * 2
    ]  # fmt: skip
    assert all(np.isfinite(float(value)) for _, value in rows)
    assert said.endswith("every mark is reached\n")


def test_a_mark_is_eased_and_the_missed_ones_are_named(load, capsys):
    common = load("common")
    for sense, mark, worse in ((">=", 2.0, 1.98), ("<=", 2.0, 2.02)):
        of = {"best": mark, "near": worse, "none": np.nan}
        marks = [common.Mark(name, value, sense, mark) for name, value in of.items()]
        common.hold(marks[:1])
        common.hold(marks[:2], ease=1.02)
        with pytest.raises(InputError, match=r"^missed: near; none$"):
            common.hold(marks)
    *_, header, best, near, none = capsys.readouterr().out.splitlines()
    assert header.split() == ["figure", "value", "mark", "reached"]
    assert [row.split()[-1] for row in (best, near, none)] == ["True", "False", "False"]


def test_the_output_of_a_command_that_fails_is_told(load):
    with pytest.raises(InputError, match=r"raise SystemExit.*: no such thing"):
        load("common").measure([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_the_product_is_compared_with_the_stock_path_and_with_its_own_halves(load):
    seconds = {"stock": 3.0, "product": 1.0, "decoding alone": 0.6, "forward alone": 0.35}
    table = pd.DataFrame({"s": seconds, "largest": {"product": 1e-5}})
    faster, share, far = load("extraction").marks(table)
    assert (faster.value, share.value, far.value) == (3.0, pytest.approx(0.95), 1e-5)


def test_a_kernel_may_take_a_tenth_longer_a_row_and_the_bootstrap_alone_may_hold_its_table(load):
    kernels, rows = load("kernels"), [10_000, 100_000, 1_000_000]

    def missed(kernel, seconds, *peaks):
        table = pd.DataFrame({"kernel": kernel, "rows": rows, "s": seconds, "MB": peaks})
        return [mark.figure for mark in kernels.marks(table) if mark.value > mark.mark]

    level, more = [0.02, 0.1, 1.0], "MB more at the largest size"
    assert missed("scan", [0.02, 0.1, 1.09], 200.0, 210.0, 220.0) == []
    slower = missed("scan", [0.02, 0.1, 1.2], 200.0, 200.0, 200.0)
    assert slower == ["scan: times as long a row at the largest size"]
    assert missed("scan", level, 200.0, 210.0, 300.0) == [f"scan: {more}"]
    assert missed("bootstrap", level, 200.0, 210.0, 300.0) == []
    assert missed("bootstrap", level, 200.0, 210.0, 600.0) == [f"bootstrap: {more}"]


def test_the_growth_of_the_kernels_is_measured_and_drawn(tmp_path):
    plot = tmp_path / "growth.png"
    sizes = ["--rows", 9000, 10000, "--repeats", 1, "--ease", 100]
    said, _ = run("kernels", *sizes, "--plot", plot)
    rows = [line.split() for line in said.splitlines()[1:9]]
    kernels = ("scoring", "ridge", "scan", "bootstrap")
    assert [row[:2] for row in rows] == [[name, n] for name in kernels for n in ("9000", "10000")]
    assert all(float(figure) > 0 for row in rows for figure in row[2:])
    assert plot.read_bytes().startswith(b"\x89PNG")


# All steps


def test_every_step_is_measured():
    measured(STEPS)


@pytest.mark.parametrize(("ease", "status"), [(100, 0), (0.001, 1)])
def test_the_engines_own_time_is_held_to_its_mark(tmp_path, ease, status):
    repository = Project(tmp_path / "repository").folder
    flags = ["--studies", "demo", "--repeats", 1, "--ease", ease]
    said, log = run("engines", *flags, root=repository, status=status)
    header, row = map(str.split, said.splitlines()[:2])
    assert header[:2] == ["study", "artifacts"] and row[0] == "demo" and int(row[1]) > 100
    assert all(float(seconds) >= 0 for seconds in row[2:])
    assert ("error: missed: demo: seconds of snakemake" in log) == bool(status)
