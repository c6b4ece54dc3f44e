"""Train a nonlinear translator on the training images by each loss, judge it on the held-out ones
and keep the best.
"""

from typing import Literal

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.translators.parameters import Training


class Flags(Training, cli.PairStep):
    reference: str | None
    kind: Literal["mlp3", "mlp4", "residual"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    seed: int


def main(flags: Flags) -> None:
    from singflow.translators.curves import Curves
    from singflow.translators.networks import Pairs, prepare, train

    cli.limit_threads(flags.threads)
    device = prepare(flags.device, flags.threads)
    inputs = Inputs.of(flags)
    images, output = inputs.training(flags.reference), flags.path("network")
    pairs = Pairs(images.features, images.embeddings, images.shards, images.manifest, device)
    checkpoint = output.with_name(f"{output.name}.partial")
    with Curves(
        flags.log.with_suffix("") if flags.log and flags.history == "tensorboard" else None
    ) as curves:
        trained = train(pairs, flags.kind, flags, flags.seed, checkpoint, curves.extend)
    kept = trained.losses[trained.loss]
    metadata = provenance(
        ["torch"],
        study=flags.study,
        model=flags.model,
        space=flags.space,
        kind=flags.kind,
        loss=trained.loss,
        width=flags.width,
        dropout=flags.dropout,
    )
    write_tensors(
        output,
        {name: tensor.numpy() for name, tensor in trained.network.state_dict().items()},
        metadata,
    )
    report = {
        "alpha": None,
        "alpha_curve": [],
        "kind": flags.kind,
        "loss": trained.loss,
        "validation_cosine": kept["validation_cosine"],
        "validation_mse": kept["validation_mse"],
        "validation_r2": kept["validation_r2"],
        "baseline_cosine": trained.baseline_cosine,
        "n_train": trained.n_train,
        "n_validation": trained.n_validation,
        "parameters": trained.network.size,
        "losses": trained.losses,
    }
    write_json(flags.path("network_report"), report)
    checkpoint.unlink(missing_ok=True)
    cli.log.info(
        "%s -> %s: %s by loss %s, epoch %d of %d; held-out cosine %.3f (baseline %.3f), R2 %.3f",
        flags.model,
        flags.space,
        flags.kind,
        trained.loss,
        kept["best_epoch"],
        kept["epochs"],
        kept["validation_cosine"],
        trained.baseline_cosine,
        kept["validation_r2"],
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
