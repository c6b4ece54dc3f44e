"""Split the feature space of a head into principal and null space."""

from singflow import cli
from singflow.analyses.geometry import logit_change, null_space, remove_null
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.made import Made
from singflow.artifacts.shards import in_blocks, iterate_shards, shard_path
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.translators.parameters import Projector


class Flags(Projector, cli.ModelStep): ...


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    weight, made = inputs.head["weight"], inputs.head_facts
    dtype = made["weight_dtype"]
    split = null_space(weight, flags.rule, flags.energy, flags.rank, dtype)
    null_dim = split.basis.shape[1]
    largest = 0.0
    folder, of_head = inputs.path("features").parent, Made.read(made)
    for shard in iterate_shards(folder, "features", flags.shards, inputs.manifest, of_head):
        for features in in_blocks(shard["features"]):
            change = logit_change(weight, features, remove_null(features, split.basis))
            largest = max(largest, float(change.max(initial=0.0)))
    known = right = 0
    for number in range(flags.shards):
        facts = read_tensors(shard_path(folder, number), [])[1]
        images = facts.parsed("top1_images", int)
        known += images
        right += round(images * (facts.parsed("top1", float | None) or 0.0))
    tensors = {"singular_values": split.singular_values, "null_basis": split.basis}
    write_tensors(flags.path("projector"), tensors, provenance(["scipy"], **flags.named))
    report = {
        "rank": split.rank,
        "null_dim": null_dim,
        "weight_dtype": dtype,
        "rank_stored": split.rank_stored,
        "rank_float64": split.rank_float64,
        "rule": flags.rule,
        "tolerance": split.tolerance,
        "orthonormality_error": split.orthonormality_error,
        "max_logit_change": largest,
        "top1": right / known if known else None,
        "top1_images": known,
    }
    write_json(flags.path("projector_report"), report)
    if split.rank_stored != split.rank_float64:
        ranks = f"rank {split.rank_stored} at the precision of its stored weights ({dtype})"
        cli.log.info("%s: %s, %d at float64", flags.model, ranks, split.rank_float64)
    if null_dim == 0:
        cli.log.warning(
            f"{flags.model}: this head has no null space by rule {flags.rule}: its logits see "
            "every direction, and every score is 0"
        )
    sizes = f"rank {split.rank}, null dimension {null_dim}"
    cli.log.info("%s: %s; logits move by at most %.1e", flags.model, sizes, largest)


if __name__ == "__main__":
    cli.run_step(main, Flags)
