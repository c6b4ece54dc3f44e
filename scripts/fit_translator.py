"""Fit a translator from features to embeddings on the training images and judge it on the held-out ones."""

from pathlib import Path

import numpy as np

from singflow import cli
from singflow.artifacts.files import write_json
from singflow.artifacts.shards import iterate_pairs, read_manifest
from singflow.artifacts.tensors import provenance, write_tensors
from singflow.errors import InputError
from singflow.translators.linear import read_imported
from singflow.translators.parameters import Translator
from singflow.translators.ridge import Agreement, RidgeStatistics


class Flags(Translator, cli.Command):
    """Fit a translator from features to embeddings on the training images and judge it on the held-out ones."""

    study: str
    model: str
    space: str
    manifest: Path
    features: Path
    embeddings: Path
    shards: int
    threads: int
    translator: Path
    report: Path


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    manifest = read_manifest(flags.manifest)
    training = (manifest["split"] == "train").to_numpy()
    statistics: RidgeStatistics | None = None
    for shard, embeddings in iterate_pairs(flags.features, flags.embeddings, flags.shards, manifest):
        statistics = statistics or RidgeStatistics(shard["features"].shape[1], embeddings.shape[1])
        chosen = training[shard["image_id"]]
        statistics.update(shard["features"][chosen], embeddings[chosen])
    if statistics is None:
        raise InputError("no shards: extraction.shards must be at least 1")
    released = read_imported(flags.imported, flags.space, flags.model)
    candidates = [released] if released else list(statistics.path(flags.alphas))
    shape = (len(statistics.embedding_mean), shard["features"].shape[1])
    if released and released.weight.shape != shape:
        raise InputError(f"the imported translator has shape {released.weight.shape}, but {flags.model} -> {flags.space} needs {shape}")
    agreements = [Agreement() for _ in candidates]
    baseline = Agreement()
    for shard, embeddings in iterate_pairs(flags.features, flags.embeddings, flags.shards, manifest):
        chosen = ~training[shard["image_id"]] & (shard["view"] == 0)
        features, target = shard["features"][chosen].astype(np.float64), embeddings[chosen]
        baseline.update(np.broadcast_to(statistics.embedding_mean, target.shape), target)
        for candidate, agreement in zip(candidates, agreements, strict=True):
            agreement.update(candidate(features), target)
    best = int(np.argmin([agreement.squared_error for agreement in agreements]))
    translator, agreement, alpha = candidates[best], agreements[best], None if released else flags.alphas[best]
    dim = len(translator.bias)
    metadata = provenance(["scipy"], study=flags.study, model=flags.model, space=flags.space, kind=flags.kind, alpha=alpha)
    tensors = {"weight": translator.weight.astype(np.float32), "bias": translator.bias.astype(np.float32)}
    write_tensors(flags.translator, tensors, metadata)
    report = {
        "alpha": alpha,
        "validation_cosine": agreement.cosine,
        "validation_mse": agreement.mse(dim),
        "validation_r2": agreement.r2(baseline),
        "baseline_cosine": baseline.cosine,
        "n_train": 0 if released else statistics.n,
        "n_validation": agreement.n,
        "alpha_curve": [
            {"alpha": a, "validation_cosine": each.cosine, "validation_mse": each.mse(dim), "validation_r2": each.r2(baseline)}
            for a, each in zip([None] if released else flags.alphas, agreements, strict=True)
        ],
    }
    write_json(flags.report, report)
    if released is None and len(flags.alphas) > 1 and alpha in (min(flags.alphas), max(flags.alphas)):
        cli.log.warning("%s: the best alpha, %g, is at the end of translator.alphas: extend the list", flags.model, alpha)
    cli.log.info(
        "%s -> %s: %s; held-out cosine %.3f (baseline %.3f), R2 %.3f",
        flags.model, flags.space, "imported" if released else f"alpha {alpha:g}", agreement.cosine, baseline.cosine, agreement.r2(baseline),
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Flags)
