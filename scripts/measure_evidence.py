"""Test whether the null component tells something about an image that the logits do not tell, which
leaks this study could have found, which texts and groups of images the hidden meaning is about, and
how many null directions a head would have to make visible.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from singflow import cli
from singflow.analyses.bands import Block
from singflow.analyses.evidence import Evidence, measure, turn_deg
from singflow.analyses.floor import SplitHead, refitted_scores, whole_images
from singflow.analyses.head_extension import enough, head_extension
from singflow.analyses.hidden import Question, hidden_groups, hidden_texts
from singflow.analyses.inputs import Inputs
from singflow.artifacts.files import write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.data.reading import column_cells


class Flags(Evidence, cli.PairStep):
    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    reference: str | None
    confidence: float
    seed: int
    table: Path


def known(inputs: Inputs) -> dict[str, bool]:
    """Whether the answer is known in advance.

    The null space holds nothing if the image tower is a function of the logits, and a leak if
    classes were cut off the head.
    """
    model, (_, space) = inputs.head_facts, read_tensors(inputs.path("embeddings"), [])
    leak = model.get("keep_classes", "null") != "null"
    return {
        "known_zero": not leak and model.get("weights_sha256") == space.get("classifier_sha256"),
        "known_leak": leak,
    }


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags, "sha256", *(["path"] if flags.groups else []))
    training = inputs.training(flags.reference)
    pool = [training] if training is inputs.pairs else [training, inputs.pairs]
    head = SplitHead.split(inputs.head, inputs.null_basis)
    null_dim = head.null.shape[1]
    spelled, _ = read_tensors(inputs.path("classes"), ["class_embeddings", "other_embeddings"])
    texts, others = (
        spelled[name].astype(np.float64) if len(spelled[name]) else None
        for name in ("class_embeddings", "other_embeddings")
    )

    def blocks() -> Iterator[Block]:
        return chain.from_iterable(whole_images(images, head, flags.threads) for images in pool)

    found = measure(
        blocks,
        texts,
        others,
        flags,
        flags.confidence,
        flags.seed,
        lambda shape: Scratch(flags.path("evidence").parent, *shape),
        flags.threads,
    )
    facts, words, planted = found.facts, found.words, found.planted
    curve = head_extension(found, min(null_dim, len(words.offset)), flags.confidence, flags.threads)
    question = Question(flags.margin, flags.confidence, flags.seed)
    column = None
    if flags.groups:
        column = dict(column_cells(flags.table, flags.groups, "evidence.groups"))
    of_texts = hidden_texts(inputs, pool, flags.reference, found, question)
    of_groups = hidden_groups(inputs, pool, column, found, question)
    del found  # the read-outs leave room for the translators
    scores, refitted = refitted_scores(
        inputs,
        pool,
        head,
        words,
        folds=flags.folds,
        lambdas=flags.lambdas,
        draws=flags.draws,
        seed=flags.seed,
        threads=flags.threads,
    )
    report = facts | refitted | known(inputs)
    report |= {"principal_dim": head.principal.shape[1], "null_dim": null_dim}
    report |= {"floor_is_deg": float(scores["floor_is_deg"].mean())}
    for end in ("", "_low", "_high"):
        report[f"turn{end}_deg"] = turn_deg(facts[f"unique_r2{end}"], words, report["r2"])
    write_parquet(flags.path("evidence_images"), scores)
    write_parquet(flags.path("planted_leaks"), planted)
    write_parquet(flags.path("evidence_texts"), of_texts)
    write_parquet(flags.path("evidence_groups"), of_groups)
    write_parquet(flags.path("head_extensions"), curve)
    saved = {"word_weights": words.weights, "offset": words.offset}
    saved["class_embeddings"] = spelled["class_embeddings"]
    write_tensors(flags.path("own_words"), saved, provenance([], **flags.named))
    write_json(flags.path("evidence"), report)
    cli.log.info(
        "D %s, margin %g, p %s; detectable %s; blind check %s; floor of IS %.2f degrees",
        *(facts[name] for name in ("unique_r2", "margin", "p", "detectable", "blind_unique_r2")),
        report["floor_is_deg"],
    )
    cli.log.info(
        "%d of %d texts and %d of %d groups are hidden",
        *(
            number
            for table in (of_texts, of_groups)
            for number in (table["hidden"].sum(), len(table))
        ),
    )
    above = facts["p"] is not None and facts["p"] <= 1 - flags.confidence
    last, fewest = curve.iloc[-1], enough(curve) if above else None
    most = "" if fewest is None else f", of which {fewest} give 90 % of it"
    cli.log.info(f"D {last['unique_r2']:.4f} with {last['directions']:.0f} null directions{most}")


if __name__ == "__main__":
    cli.run_step(main, Flags)
