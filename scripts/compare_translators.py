"""Gather the translators' held-out scores: a row per space, model, kind and loss, and metrics."""

from functools import partial
from typing import Any

import pandas as pd

from singflow import cli
from singflow.analyses.tables import EDGE, WEAK, join_marks
from singflow.artifacts.files import read_json, write_json
from singflow.artifacts.tables import write_table
from singflow.artifacts.tensors import read_tensors
from singflow.translators.linear import with_held_out_figures

FIGURES = ["validation_cosine", "validation_mse", "validation_r2"]
HEADER = (
    f"space model kind loss kept {' '.join(FIGURES)} baseline_cosine gain_cosine gain_r2"
    " parameters n_train n translator seed marks"
).split()


class Flags(cli.Selection):
    kinds: list[str]
    min_r2: float
    seed: int


def main(flags: Flags) -> None:
    rows, metrics = [], {}
    for space in flags.spaces:
        for model in flags.models:
            of_pair = partial(flags.path, space=space, model=model)
            linear = with_held_out_figures(read_json(of_pair("translator_report")))
            weights, _ = read_tensors(of_pair("translator"), ["weight", "bias"])
            size = sum(tensor.size for tensor in weights.values())
            fitted = {"kind": "linear", "loss": "ridge", "parameters": size}
            reports = [linear | fitted | {"losses": {"ridge": linear}}]
            reports += [read_json(of_pair("network_report", kind=kind)) for kind in flags.kinds]
            shared = {"space": space, "model": model, "seed": flags.seed}
            rows += [
                shared | _row(report, loss, linear, flags.min_r2)
                for report in reports
                for loss in report["losses"]
            ]
            metrics.setdefault(space, {})[model] = {
                report["kind"]: _held_out(report) for report in reports
            }
    write_table(flags.path("tables/translators.csv"), pd.DataFrame(rows, columns=HEADER))
    write_json(flags.path("tables/translators.json"), metrics)
    cli.log.info("%d models, %d spaces: %d rows", len(flags.models), len(flags.spaces), len(rows))


def _held_out(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Held-out figures of each loss, and as `kept` those of the loss whose network was kept."""
    figures = {
        loss: {name: held_out[name] for name in FIGURES}
        for loss, held_out in report["losses"].items()
    }
    return figures | {"kept": figures[report["loss"]]}


def _row(
    report: dict[str, Any], loss: str, linear: dict[str, Any], min_r2: float
) -> dict[str, Any]:
    figures = {name: report["losses"][loss][name] for name in FIGURES}
    weak = figures["validation_r2"] < min_r2
    return {
        "kind": report["kind"],
        "loss": loss,
        "kept": loss == report["loss"],
        **figures,
        "baseline_cosine": report["baseline_cosine"],
        "gain_cosine": figures["validation_cosine"] - linear["validation_cosine"],
        "gain_r2": figures["validation_r2"] - linear["validation_r2"],
        "parameters": report["parameters"],
        "n_train": report["n_train"],
        "n": report["n_validation"],
        "translator": "weak" if weak else "not weak",
        "marks": join_marks({WEAK: weak, EDGE: report.get("lambda_at_edge", False)}),
    }


if __name__ == "__main__":
    cli.run_step(main, Flags)
