"""Split the feature space of a head into principal and null space."""

from pathlib import Path

from singflow import cli
from singflow.analyses.geometry import logit_change, null_space, remove_null
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import in_blocks, iterate_shards, read_index
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.translators.parameters import Projector


class Flags(Projector, cli.Command):
    """Split the feature space of a head into principal and null space."""

    study: str
    model: str
    head: Path
    features: Path
    shards: int
    manifest: Path
    threads: int
    projector: Path
    report: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    head, made = read_tensors(flags.head, ["weight"])
    split = null_space(head["weight"], flags.rule, flags.energy, flags.rank, made["weight_dtype"])
    null_dim = split.basis.shape[1]
    largest = 0.0
    for shard in iterate_shards(
        flags.features, "features", flags.shards, read_index(flags.manifest), made["weights_sha256"]
    ):
        for features in in_blocks(shard["features"]):
            change = logit_change(head["weight"], features, remove_null(features, split.basis))
            largest = max(largest, float(change.max(initial=0.0)))
    metadata = provenance(["scipy"], study=flags.study, model=flags.model)
    write_tensors(
        flags.projector,
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
    write_json(flags.report, report)
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
    cli.run(main, Flags)
