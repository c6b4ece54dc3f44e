"""Measure what logits and meaning lose when fewer leading directions of the head are kept."""

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.analyses.rank_curve import CurveStatistics, RankCurve
from singflow.artifacts.tables import write_parquet


class Flags(RankCurve, cli.PairStep):
    energy: float


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    head, dtype = inputs.head, inputs.head_facts["weight_dtype"]
    curve = CurveStatistics(
        head["weight"], head["bias"], inputs.translators, flags.kept, flags.energy, dtype
    )
    for image_id, features in inputs.features():
        curve.update(image_id, features, inputs.label_texts[inputs.label_of[image_id]])
    table = curve.table()
    write_parquet(flags.path("rank_curves"), table)
    for row in table.to_dict("records"):
        cli.log.info(
            "%(point)s %(kept).3f: rank %(rank)d; relative logit change %(logit_relative_mean).2g, "
            "top-1 changed %(top1_changed).3f, IS %(is_mean_deg).2f degrees",
            row,
        )


if __name__ == "__main__":
    cli.run_step(main, Flags)
