"""Test whether the null component tells something about an image that the logits do not tell, which
leaks this study could have found, and which texts and groups of images the hidden meaning is about.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from singflow import cli
from singflow.analyses.evidence import EvidenceSettings
from singflow.analyses.floor import Refitting, SplitHead
from singflow.analyses.hidden import TESTED, Question
from singflow.analyses.inputs import Inputs, images_of, known_answer
from singflow.artifacts.files import write_json
from singflow.artifacts.scratch import Scratch
from singflow.artifacts.tables import write_parquet
from singflow.artifacts.tensors import provenance, read_tensors, write_tensors
from singflow.data.reading import group_cells
from singflow.evidence import Evidence
from singflow.judging import judge
from singflow.translators.linear import read_linear
from singflow.translators.ridge import Affine


class Flags(EvidenceSettings, cli.PairStep):
    lambdas: list[Annotated[float, Field(gt=0)]]
    folds: int
    reference: str | None
    confidence: float
    seed: int
    table: Path
    class_list: Path


def hidden_groups(
    inputs: Inputs, images: pd.DataFrame, found: Evidence, flags: Flags
) -> pd.DataFrame:
    """D by label, by predicted class and, where a column names them, by groups of images."""
    named = read_tensors(inputs.path("classes"), [])[1].parsed("class_names", list)
    predicted = pd.Series(found.residuals.predicted if found.residuals else 0, images.index)
    groups = {"label": images["label"], "predicted": predicted.map(
        lambda place: named[place] if named else str(place)
    )}  # fmt: skip
    if flags.groups:
        column, cells = group_cells(flags.class_list, flags.table, flags.groups)
        known = images["own"] | (column == "class_index")  # a table has the study's images alone
        groups["column"] = images[column].map(cells).where(known)
    tables = [found.group_rows(group).assign(by=by) for by, group in groups.items()]
    return pd.concat(tables, ignore_index=True)[["group", "by", "n", *TESTED, "hidden"]]


def main(flags: Flags) -> None:
    cli.limit_threads(flags.threads)
    inputs = Inputs.of(flags, "sha256", *(["path"] if flags.groups else []))
    pool = inputs.pool(flags.reference)
    images = images_of(pool)
    spelled, _ = read_tensors(inputs.path("classes"), ["class_embeddings", "other_embeddings"])
    texts, others = (
        spelled[name].astype(np.float64) if len(spelled[name]) else None
        for name in ("class_embeddings", "other_embeddings")
    )
    folder = flags.path("evidence").parent
    tensors, stated = read_linear(inputs.path("translator"))
    drawn = flags.draws, flags.seed, flags.threads
    refitting = Refitting(inputs.fitted, flags.folds, flags.lambdas, *drawn, folder)
    found = judge(
        pool,
        SplitHead.split(inputs.head, inputs.null_basis),
        Affine(**tensors),
        stated,
        texts,
        others,
        Question(flags.margin, flags.confidence, flags.seed),
        refitting,
        lambda shape: Scratch(folder, *shape),
    )
    listed, embeddings = inputs.asked(flags.reference)
    of_texts = listed.join(found.text_rows(embeddings), how="inner")
    of_groups = hidden_groups(inputs, images, found, flags)
    facts, own_words = found.facts, found.own_words
    write_parquet(flags.path("evidence_images"), found.images)
    write_parquet(flags.path("planted_leaks"), found.planted)
    write_parquet(flags.path("evidence_texts"), of_texts)
    write_parquet(flags.path("evidence_groups"), of_groups)
    saved = {"word_weights": own_words.weights, "offset": own_words.offset}
    saved["class_embeddings"] = spelled["class_embeddings"]
    write_tensors(flags.path("own_words"), saved, provenance([], **flags.named))
    head = inputs.head_facts
    cut = head.get("keep_classes", "null") != "null"
    known = known_answer(head.get("weights_sha256"), inputs.path("embeddings"), cut=cut)
    write_json(flags.path("evidence"), facts | known)
    cli.log.info(
        "D %s, margin %g, p %s; detectable %s; blind check %s; floor of IS %.2f degrees",
        *(facts[name] for name in ("unique_r2", "margin", "p", "detectable", "blind_unique_r2")),
        facts["floor_is_deg"],
    )
    cli.log.info(
        "D is above the margin along %d of %d texts and in %d of %d groups",
        *(of_texts["hidden"].sum(), len(of_texts), of_groups["hidden"].sum(), len(of_groups)),
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
