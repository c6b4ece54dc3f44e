"""Write the page of a study, one file that opens without a network.

A second page, among the logs, shows what the run took.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from singflow import cli
from singflow.analyses.summary import seen_by_translators
from singflow.analyses.tables import as_in_paper, legend
from singflow.artifacts.catalog import CATALOG
from singflow.artifacts.files import write_bytes
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import read_parquet, read_table
from singflow.artifacts.tensors import read_tensors
from singflow.config.public import public_params
from singflow.config.reading import read_yaml
from singflow.config.registry import read_model, read_space
from singflow.data.images import read_unchanged
from singflow.data.manifest import data_root
from singflow.data.vocabulary import read_class_list
from singflow.engines.code import ACCEPTED, read_accepted
from singflow.parallel import map_ahead
from singflow.report.content import (
    DRAWN_OF,
    SECTIONS,
    embedded,
    image_headers,
    machine,
    page_data,
    page_tables,
    pearson,
    read_caption,
    sections,
    step_table,
)
from singflow.report.page import (
    BESIDE,
    VERDICTS,
    evidence_picture,
    evidence_rows,
    libraries,
    render,
    sample,
    scatter_chart,
)
from singflow.report.parameters import Report
from singflow.report.tables import table
from singflow.report.thumbnails import sheets, tile, tile_side
from singflow.report.words import below_the_table, steering_said, verdicts, warnings

REPORT = Path("report")  # templates, captions and figures of the paper
CONTENTS = {
    "summary": "Verdicts",
    "models": "Models",
    "labels": "Labels",
    "concepts": "Concepts",
    "images": "Images",
    "pictures": "Pictures",
    "checks": "Trust",
    "provenance": "Provenance",
}
SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star"]


class Flags(Report, cli.Selection):
    classes: Path
    source: str
    root: str
    max_pixels: int
    confidence: float
    min_r2: float
    seed: int
    threads: int


def main(flags: Flags) -> None:
    from singflow.figures.style import colour

    tables_here = [flags.path(name) for name in CATALOG if re.match(r"tables/.*\.csv", name)]
    figures = [flags.path(name) for name in CATALOG if re.match(r"figures/.*\.png", name)]
    csv = {path.stem: read_table(path) for path in tables_here}
    captions = {
        path.stem: read_caption(REPORT / f"captions/{path.stem}.rst")
        for path in [*figures, *tables_here]
    }
    titles = {name: caption.title for name, caption in captions.items()} | {
        "rejected": "Files left out, rare reasons first"
    }
    manifest, rejected = (read_manifest(flags.path("manifest")), read_table(flags.path("rejected")))
    paper = read_yaml(REPORT / "paper.yaml")
    shown = sample(
        len(manifest), len(flags.models) * len(flags.spaces), flags.max_images, flags.seed
    )
    colours = {  # black cannot be seen on a dark page
        model: colour(number).replace("#000000", "#808080")
        for number, model in enumerate(flags.models)
    }
    symbols = {model: SYMBOLS[number % len(SYMBOLS)] for number, model in enumerate(flags.models)}
    scores, neighbours = (
        flags.gather(kind, lambda path, kind=kind: read_parquet(path, kind).iloc[shown])
        for kind in ("scores", "neighbours")
    )
    entries = {space: read_space(flags.path("space_entry", space=space)) for space in flags.spaces}
    same = as_in_paper(csv["models"], manifest["class_index"], paper)
    steered = read_yaml(flags.path("params"))["steering"]["labels"]
    tables = page_tables(csv, rejected, paper, same, steered, titles, len(flags.spaces) > 1)
    own = {
        name: {space: csv[name][csv[name]["space"] == space] for space in flags.spaces}
        for name in ("models", "model_pairs", "orders")
    }
    spaces = [
        {
            "name": space,
            "verdicts": verdicts(own["models"][space]),
            "picture": evidence_picture(own["models"][space]),
            "rows": evidence_rows(own["models"][space]),
            "table": table(f"verdicts-{space}", "", own["models"][space], [*VERDICTS, *BESIDE]),
            "below": below_the_table(
                own["models"][space],
                own["model_pairs"][space],
                own["orders"][space],
                csv["order_agreement"],
            ),
            "scatter": scatter_chart(scores[space], own["models"][space], colours, symbols),
        }
        for space in flags.spaces
    ]
    made = [read_tensors(flags.path("head", model=model), [])[1] for model in flags.models]
    seen = [
        read_tensors(flags.path("embeddings", space=space, shard="00000"), [])[1]
        for space in flags.spaces
    ]
    class_names = {
        m: metadata.parsed("class_names", list | None) or read_class_list(flags.classes)
        for m, metadata in zip(flags.models, made, strict=True)
    }
    models = [read_model(flags.path("model_entry", model=model)) for model in flags.models]
    sources = [f"{entry.source}: {entry.id}, {entry.weights}" for entry in models] + [
        entry.source for entry in entries.values()
    ]
    names = [*flags.models, *flags.spaces]
    software = sorted(
        {pair for metadata in [*made, *seen] for pair in metadata.parsed("software", dict).items()}
    )
    untold = csv.keys() - tables.keys()  # tables that have nothing to tell
    drawn = [
        path
        for path in figures
        if captions[path.stem].section and DRAWN_OF.get(path.stem, path.stem) not in untold
    ]
    parts = sections(
        captions, [path.stem for path in drawn], [name for name in csv if name in tables]
    )
    page = render(
        REPORT / "page.html",
        {
            "study": flags.study,
            "models": flags.models,
            "spaces": spaces,
            "paper_space": paper["space"] in flags.spaces,
            "percent": f"{100 * flags.confidence:g} %",
            "legend": legend(csv["models"]["marks"]),
            "warnings": warnings(
                csv["models"], {name: entry.source for name, entry in entries.items()}, flags.min_r2
            ),
            "contents": [
                (name, title)
                for name, title in CONTENTS.items()
                if name in parts or name not in SECTIONS
            ],
            "seen": seen_by_translators(csv["models"], manifest),
            "counts": {
                "images": len(manifest),
                "labels": manifest["label"].nunique(),
                "rejected": len(rejected),
                "found": len(manifest) + len(rejected),
                "shown": len(shown),
            },
            "tables": tables,
            "figures": {path.stem: embedded(path, captions[path.stem]) for path in drawn},
            "sections": parts,
            "image_headers": image_headers(len(flags.spaces) > 1),
            "said": {
                "steering": steering_said(csv["steering"], csv["models"], flags.confidence),
                "probes": pearson(csv["probes"], paper, csv["models"][same]),
            },
            "software": software,
            "weights": [
                (name, source, metadata["weights_sha256"])
                for name, source, metadata in zip(names, sources, [*made, *seen], strict=True)
            ],
            "accepted": read_accepted(ACCEPTED),
            "params": public_params(flags.path("params"))[0].decode(),
            "data": page_data(manifest, shown, scores, neighbours, class_names),
            "sheets": thumbnails(flags, manifest.iloc[shown]),
            "libraries": libraries(),
        },
    )
    run = {
        "study": flags.study,
        "machine": machine(),
        "steps": step_table(flags.results / "benchmarks"),
    }
    write_bytes(flags.results / "logs/run.html", render(REPORT / "run.html", run).encode())
    write_bytes(flags.path("report.html"), page.encode())
    cli.log.info(
        "%s: %.1f MB, %d of %d images one by one",
        flags.path("report.html"),
        len(page.encode()) / 1e6,
        len(shown),
        len(manifest),
    )


def thumbnails(flags: Flags, images: pd.DataFrame) -> list[str]:
    """Sheets of thumbnails, in the order of the images."""
    root, side = data_root(flags.source, flags.root), tile_side(len(images))

    def small(row: Any) -> Image.Image:
        return tile(read_unchanged(root, row, flags.max_pixels), side)

    progress = partial(cli.progress, total=len(images), unit="images", description="thumbnails")
    return sheets(progress(map_ahead(small, images.itertuples(index=False), flags.threads)), side)


if __name__ == "__main__":
    cli.run_step(main, Flags)
