import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from singflow.commands.options import PARAMS, Models, Params, Spaces

FIX = (
    "to know these hours: `make bench-gpu` on the card, for towers, or --from results/<study> of a "
    "small study that ran there"
)
REPORTS = Path(".snakemake/efficiency")  # slurm-efficiency-report-path of the profile


def plan(
    params: Params = PARAMS,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
    results: Annotated[
        Path,
        typer.Option(
            help="Folder of the results of all studies, where measured times are looked for."
        ),
    ] = Path("results"),
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            help="Device of the steps that can use a GPU; by default extraction.device; "
            "auto: a GPU when there is one here."
        ),
    ] = None,
    pilot: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="results/<study> of a study that ran on these machines: "
            "its measurements correct times and memory.",
        ),
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option(
            help="Rates of towers that `make bench-gpu` measured; by default "
            "benchmarks/rates.csv, if it is there."
        ),
    ] = None,
) -> None:
    """Print the cost of a study before it runs: jobs, hours, memory and disk."""
    from singflow.config.reading import read_yaml
    from singflow.config.registry import resolve_models, resolve_spaces
    from singflow.config.sections import outside
    from singflow.data.imported import with_sizes
    from singflow.errors import InputError
    from singflow.planning.calibration import calibrate, read_reports
    from singflow.planning.costs import has_gpu, images_here
    from singflow.planning.plan import (
        Planner,
        cost_table,
        list_jobs,
        order_of_magnitude,
        precision_table,
    )
    from singflow.planning.rates import RATES, read_rates
    from singflow.planning.slurm import runs
    from singflow.study import read_layers, settle

    content = read_layers(params)
    study, _ = settle(content, str(params))
    gpu = has_gpu(device or study.extraction.device)
    entries = resolve_models(models, study.models, study.weights)
    if study.data.source == "features":
        entries = with_sizes(outside(study.data.root), entries)
    used, calibrations = {}, {}
    if pilot:
        own, _ = runs(Path(".snakemake/log"), pilot.name)
        used = read_reports(
            path
            for path in sorted(REPORTS.glob("efficiency_report_*.csv"))
            if path.stem.rpartition("_")[2] in own
        )
        calibrations = calibrate(pilot, (models, spaces), gpu, used)
    targets = resolve_spaces(spaces, study.spaces, study.weights)
    rated = None
    if rates or RATES.exists():
        rated = read_rates(rates or RATES, gpu, study.threads)
    if rates and not rated:
        kind = "a GPU" if gpu else f"a CPU with {study.threads} threads"
        raise InputError(f"{rates}: has no rates of {kind}: measure some with `make bench-gpu`")
    planner = Planner(content, entries, targets, results, gpu, calibrations, rated)
    waiting, every = list_jobs(params), list_jobs(params, "--forceall")
    table = cost_table(waiting, every, planner, read_yaml("dvc.yaml")["stages"])
    hours, guessed = ["GPU hours", "core hours", "longest h"], table.pop("guess")
    total = table.loc[~guessed, hours[:2]].sum()
    peak, asked = table[["peak GB", "asked GB"]].max()
    free = shutil.disk_usage(results if results.exists() else Path()).free / 1e9
    unmeasured = table.loc[guessed, "step"]
    left_out = f", without {', '.join(unmeasured)}: unmeasured" if len(unmeasured) else ""
    on_gpu = f"{total['GPU hours']:.1f} GPU-hours, " if total["GPU hours"] or not left_out else ""
    assumed = "" if images_here(content, results / study.study) else " (assumed: none are here yet)"
    print(
        f"Study {study.study}: {planner.images} images{assumed}, {len(entries)} models, "
        f"{len(study.spaces)} spaces"
    )
    if planner.images and (study.translator.folds or study.translator.reference):
        print(
            "What the test of meaning would find, if features vary as made-up ones do "
            "(docs/planning.md):"
        )
        print("\n".join(f"{', '.join(names)}: {told}" for told, names in planner.shows().items()))
    print(f"{len(waiting)} of {len(every)} jobs to run, {len(every) - len(waiting)} done")
    print(f"{on_gpu}{total['core hours']:.1f} core-hours in all (those beside a GPU too){left_out}")
    if left_out:
        guess = order_of_magnitude(table.loc[guessed, "GPU hours"].sum())
        print(f"{guess} GPU-hours more: ~ marks an order of magnitude that nobody has measured")
    print(f"{peak:.1f} GB of memory in the largest job, {asked:.1f} GB asked for")
    print(f"{table['disk GB'].sum():.1f} GB to write, {free:.0f} GB free\n")
    shown = table.astype(dict.fromkeys(hours, object))
    shown.loc[guessed, hours] = table.loc[guessed, hours].map(order_of_magnitude)
    print(shown.to_string(index=False, float_format=_short, na_rep="-"))
    if rated and len(compared := precision_table(waiting, planner)):
        print(f"\nHours by precision, at the rates in {rated.measured}:")
        print(compared.to_string(index=False, float_format=_short, na_rep="-"))
    if pilot:
        print(
            f"\nMeasured in {pilot}, taken to have run {'with' if gpu else 'without'} a GPU, "
            "over what was reckoned for it:"
        )
        short = []
        for step, calibration in calibrations.items():
            known = {"time": calibration.seconds, "memory": calibration.megabytes}
            ratios = [f"{what} x {ratio:.2f}" for what, ratio in known.items() if ratio]
            if ratios:
                print(f"{step} ({calibration.jobs} jobs): {', '.join(ratios)}")
            else:
                short.append(step)
        print(f"too small there to tell, so only reckoned here: {', '.join(short) or 'none'}")
        for step, jobs in used.items():
            print(
                f"Slurm counted for {step} ({jobs.jobs} jobs): at most {jobs.peak_mb / 1e3:.1f} of "
                f"{jobs.asked_mb / 1e3:.1f} GB asked, {100 * jobs.busy:.0f} % of the CPUs"
            )
    if left_out:
        print(f"\n{FIX}")
    if not gpu and study.extraction.device != "cpu" and device is None:
        print(
            "\nThere is no GPU here, so none is reckoned with: --device cuda shows a run with one"
        )


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"
