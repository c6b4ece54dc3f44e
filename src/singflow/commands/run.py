import io
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from singflow.cli import QUIET
from singflow.errors import InputError
from singflow.system import gpu_count

if TYPE_CHECKING:
    from singflow.study import Params

LOADING = {  # steps that load the weights of a model or a space
    "model": ("resolve_model", "extract_head", "extract_features"),
    "space": ("resolve_space", "embed_images", "embed_prompts", "embed_classes"),
}
OF_A_RUN = {"keep_incomplete", "drop_metadata", "skip_script_cleanup"}  # among its utilities


def run(
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Targets and options of snakemake: `report`, or `--cores 2`."),
    ] = None,
) -> None:
    """Run a study with Snakemake, show the time left, and print the results.

    After an interruption, the same command continues where the run stopped.
    """
    from snakemake.cli import args_to_api, parse_config

    from singflow.artifacts.catalog import CATALOG, TIERS
    from singflow.commands.show_summary import print_summary
    from singflow.engines import records
    from singflow.planning.prospects import check_root, say_prospects
    from singflow.study import PARAMS, read_layers, read_params, settle

    words = options or []
    parser, args = parsed(words)
    if asks_otherwise(parser, args):
        raise typer.Exit(not args_to_api(args, parser))
    file = args.configfile[-1] if args.configfile else PARAMS
    content = read_layers(file)
    study, entries = settle(content, str(file))
    given = parse_config(args.config)
    results, tier = Path("results", given.get("study", study.study)), os.environ.get("DVC_STAGE")
    if tier in TIERS:
        above = [*TIERS][: [*TIERS].index(tier)]
        if records.made_elsewhere(results, above):
            records.vouch_for(above)
    elif not (args.dryrun or args.touch or args.forceall):
        records.check_made_here(results)
    if not given:
        if not args.dryrun:
            check_root(study)
        check_weights(study, entries, words)
        if tier not in TIERS:
            say_prospects(content, study, entries["model"], str(file))
    finished = CATALOG["tables/summary.txt"].at(results).is_file()
    if args.targets == ["verdict"] and not finished:  # a finished study keeps its scores
        args.config = [*(args.config or []), "analyses=[]"]
    os.environ[QUIET] = "1"
    logging.getLogger("snakemake").propagate = False  # it has a handler of its own
    # Snakemake and its steps are ended first, however long that takes.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stopped = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)
    if not args_to_api(args, parser):
        raise typer.Exit(130 if stopped else 1)
    if tier in TIERS:
        records.fill(results, [tier])
    elif not (args.dryrun or args.touch) and args.targets == ["verdict"]:
        print_summary(results)
    elif not (args.dryrun or args.touch) and {*args.targets} <= {"all", "report"}:
        print_summary(results, read_params(CATALOG["params"].at(results)).analyses)


def parsed(words: list[str]) -> tuple[Any, Any]:
    """Snakemake's parser and options, with all cores and GPUs here where nothing says where."""
    from snakemake.cli import parse_args

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            args = parse_args(words)[1]
            usual = ["--rerun-incomplete"]
            if not (args.dryrun or args.touch or args.logger):
                usual += ["--logger", "singflow"]
            if args.cores is args.jobs is args.executor is None:
                usual += ["--cores", "all"]
            if args.executor is None and gpu_count() and not args.resources:
                usual += ["--resources", f"gpu={gpu_count()}"]
            return parse_args([*words, *usual])
    except SystemExit as end:
        if not end.code:  # --version
            raise
        raise InputError(said.getvalue().strip().rpartition("error: ")[2]) from None


def asks_otherwise(parser: Any, args: Any) -> bool:
    """Whether options ask Snakemake for something else than to run or plan, such as --lint."""
    (group,) = [group for group in parser._action_groups if group.title == "UTILITIES"]
    options = {each.dest: each.default for each in group._group_actions} | {"report": None}
    options = {name: usual for name, usual in options.items() if name not in OF_A_RUN}
    return any(getattr(args, name, usual) != usual for name, usual in options.items())


def check_weights(
    study: "Params", entries: Mapping[str, Mapping[str, Any]], words: Sequence[str]
) -> None:
    """Refuse a run whose steps would load weights that are not here.

    A run that only reads what is finished, as after a fetch, needs no weights.
    """
    from singflow.planning.plan import list_jobs
    from singflow.study import PARAMS
    from singflow.towers.weights import FETCH, missing

    absent = {
        (kind, name): lacks
        for kind, towers in entries.items()
        if kind == "space" or study.data.source != "features"
        for name, entry in towers.items()
        if (lacks := missing(entry))
    }
    jobs = list_jobs(PARAMS, *words) if absent else []
    loading = [(kind, job) for kind in LOADING for job in jobs if job.step in LOADING[kind]]
    loaded = {(kind, job.wildcards.get(kind)) for kind, job in loading}
    if lines := [f"{each[1]}: {lacks}" for each, lacks in absent.items() if each in loaded]:
        raise InputError("\n".join(["weights that this run needs are not here:", *lines, FETCH]))
