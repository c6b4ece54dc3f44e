"""Train a nonlinear translator by each loss, and keep the one that is best on held-out images."""

from typing import Literal

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.translators.linear import made_for, quality_said
from singflow.translators.parameters import Training


class Flags(Training, cli.PairStep):
    reference: str | None
    kind: Literal["mlp3", "mlp4", "residual"]
    device: Literal["auto", "cpu", "cuda"]
    seed: int


def main(flags: Flags) -> None:
    from singflow.towers.device import prepare, recorded
    from singflow.translators.networks import train

    cli.limit_threads(flags.threads)
    device = prepare(flags.device, flags.threads)
    on = recorded(device)
    inputs = Inputs.of(flags)
    images = inputs.fitted_on(flags.reference)
    network, facts = train(images, flags.kind, flags, flags.seed, device)
    of = made_for(inputs.pairs.features, inputs.pairs.embeddings)
    options = {"loss": facts["loss"], "width": flags.width, "dropout": flags.dropout}
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_tensors(
        flags.path("network"), tensors, provenance(["torch"], **flags.named, **of, **on, **options)
    )
    report = {"alpha": None, "alpha_curve": [], "kind": flags.kind, **facts}
    write_json(flags.path("network_report"), report)
    kept = facts["losses"][facts["loss"]]
    epochs = f"epoch {kept['best_epoch']} of {kept['epochs']}"
    made = f"{flags.kind} by loss {facts['loss']}, {epochs}; {quality_said(facts)}"
    cli.log.info("%s -> %s: %s", flags.model, flags.space, made)


if __name__ == "__main__":
    cli.run_step(main, Flags)
