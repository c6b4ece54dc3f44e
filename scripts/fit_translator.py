"""Fit translators from features to embeddings: one without each fold, and one on all images."""

from pathlib import Path

import numpy as np

from singflow import cli
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.errors import InputError
from singflow.translators.copies import copies_across_folds, near_copies, without
from singflow.translators.crossfit import WHOLE, CrossFitted
from singflow.translators.fitting import fit_quality, fit_translators, permuted_r2
from singflow.translators.linear import (
    FIGURES,
    check_made,
    imported_path,
    made_by,
    made_for,
    quality_said,
    read_imported,
)
from singflow.translators.parameters import Translation
from singflow.translators.reference import Paired
from singflow.translators.ridge import Affine


class Flags(Translation, cli.PairStep): ...


def use_released(
    flags: Flags, images: Paired, released: Affine
) -> tuple[CrossFitted, list[np.ndarray], dict[str, object]]:
    """What fit_translators() returns, for a released translator, which is not fitted."""
    total, n = 0.0, 0
    training = (images.manifest["split"] == "train").to_numpy()
    for shard, embeddings in images:
        shape = embeddings.shape[1], shard["features"].shape[1]
        if released.weight.shape != shape:
            raise InputError(
                f"the imported translator has shape {released.weight.shape}, "
                f"but {flags.model} -> {flags.space} needs {shape}"
            )
        chosen = training[shard["image_id"]]
        total, n = total + embeddings[chosen].sum(axis=0, dtype=np.float64), n + int(chosen.sum())
    facts = {"alpha": None, "lambda": None, "lambda_at_edge": False, "n_train": 0}
    facts |= {"fold_n_train": [], "alpha_curve": []}
    return CrossFitted.alone(released, len(images.manifest)), [total / n], facts


def learned_from(flags: Flags, released: Affine | None) -> str:
    """The images that a translator was fitted on, in words; no path, which may be private."""
    if released:
        return "images that its makers chose: it was imported"
    if flags.reference == "packaged":
        return "507 ImageNet images, one a class (the packaged reference)"
    return f"the images of study {Path(flags.reference).name if flags.reference else flags.study}"


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags)
    own, images = inputs.pairs, inputs.training(flags.reference)
    copies: dict[str, object] = {"left_out": None, "near_copies": None, "n_compared": None}
    if flags.reference is not None:
        left_out = near_copies(images, own)
        copies["left_out"] = images.manifest["path"][left_out].tolist()
        images = without(images, left_out)
        cli.log.info("%d images of the reference are near copies: left out", left_out.sum())
    elif flags.folds:
        copies["near_copies"], copies["n_compared"] = copies_across_folds(own, **inputs.head)
    released = read_imported(flags.imported, flags.space, flags.model)
    if released:
        path = imported_path(flags.space, flags.model)
        check_made(path, read_tensors(path, [])[1], *made_by(own.features, own.embeddings))
        translators, means, facts = use_released(flags, images, released)
        facts["permuted_r2"] = None
    else:
        translators, means, facts = fit_translators(images, flags.folds, flags.lambdas)
        facts["permuted_r2"] = permuted_r2(images, flags.folds, flags.lambdas)
    whole = translators.whole
    held_out = (images.manifest["split"] == "validation").to_numpy()
    folds = translators.members[:WHOLE] if flags.reference is None else ()
    if flags.reference is None:
        judged = translators.member_of != WHOLE if folds else held_out
        split_off, validation = fit_quality(images, translators, means, held_out, judged)
    else:
        (split_off,) = fit_quality(images, translators, means, held_out)
        every = np.ones(len(own.manifest), dtype=bool)
        alone = CrossFitted.alone(whole, len(every))
        (validation,) = fit_quality(own, alone, means[WHOLE:], every)
    sizes = [*facts["fold_n_train"], facts["n_train"]]
    in_sample = not folds and released is None and flags.reference is None
    facts |= {"reference": flags.reference, "folds": len(folds), "in_sample": in_sample}
    tensors = {"weight": whole.weight, "bias": whole.bias}
    if folds:
        tensors["fold_weight"] = np.stack([fold.weight for fold in folds])
        tensors["fold_bias"] = np.stack([fold.bias for fold in folds])
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    report = facts | copies | validation.facts("validation", len(whole.bias))
    report["baseline_cosine"] = validation.baseline.cosine
    report["n_validation"] = validation.agreement.n
    report |= split_off.facts("held_out", len(whole.bias))
    report["held_out_baseline_cosine"] = split_off.baseline.cosine
    report["n_held_out"] = split_off.agreement.n
    report["held_out_n_train"] = max(sizes[member] for member in translators.member_of[held_out])
    told = {name: report[name] for name in ("reference", "alpha", "folds", "in_sample", *FIGURES)}
    told |= made_for(own.features, own.embeddings) | {"fitted_on": learned_from(flags, released)}
    write_tensors(flags.path("translator"), tensors, provenance(["scipy"], **flags.named, **told))
    write_json(flags.path("translator_report"), report)
    edge = " (at the edge of the list)" if facts["lambda_at_edge"] else ""
    fitted = "imported" if released else f"lambda {facts['lambda']:g}{edge}"
    seen = f"{len(folds)} folds" if flags.reference is None else f"fitted on {flags.reference}"
    made = f"{fitted}; {seen}; {quality_said(report)}"
    cli.log.info("%s -> %s: %s", flags.model, flags.space, made)


if __name__ == "__main__":
    cli.run_step(main, Flags)
