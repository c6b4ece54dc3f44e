"""Split the feature space of a head into principal and null space."""

from singflow import cli
from singflow.analyses.geometry import logit_change, null_space, remove_null
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import in_blocks, iterate_shards
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.translators.parameters import Projector


class Flags(Projector, cli.ModelStep):
    pass


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    weight, made = inputs.head["weight"], inputs.head_facts
    split = null_space(weight, flags.rule, flags.energy, flags.rank, made["weight_dtype"])
    null_dim = split.basis.shape[1]
    largest = 0.0
    for shard in iterate_shards(
        inputs.path("features").parent,
        "features",
        flags.shards,
        inputs.manifest,
        made["weights_sha256"],
    ):
        for features in in_blocks(shard["features"]):
            change = logit_change(weight, features, remove_null(features, split.basis))
            largest = max(largest, float(change.max(initial=0.0)))
    metadata = provenance(["scipy"], study=flags.study, model=flags.model)
    write_tensors(
        flags.path("projector"),
        {"singular_values": split.singular_values, "null_basis": split.basis},
        metadata,
    )
    report = {
        "rank": split.rank,
        "null_dim": null_dim,
        "weight_dtype": made["weight_dtype"],
        "rank_stored": split.rank_stored,
        "rank_float64": split.rank_float64,
        "rule": flags.rule,
        "tolerance": split.tolerance,
        "orthonormality_error": split.orthonormality_error,
        "max_logit_change": largest,
    }
    write_json(flags.path("projector_report"), report)
    if split.rank_stored != split.rank_float64:
        cli.log.info(
            "%s: rank %d at the precision of its stored weights (%s), %d at float64",
            flags.model,
            split.rank_stored,
            made["weight_dtype"],
            split.rank_float64,
        )
    if null_dim == 0:
        cli.log.warning(
            "%s: this head has no null space by rule %s: its logits see every direction, "
            "and every score is 0",
            flags.model,
            flags.rule,
        )
    cli.log.info(
        "%s: rank %d, null dimension %d; logits move by at most %.1e",
        flags.model,
        split.rank,
        null_dim,
        largest,
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
