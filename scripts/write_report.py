"""Write the page of a study, one file that opens without a network, and a page on its run."""

import re
from pathlib import Path

from singflow import cli
from singflow.analyses.tables import as_in_paper, legend
from singflow.artifacts.catalog import asked
from singflow.artifacts.files import write_bytes
from singflow.artifacts.shards import read_manifest
from singflow.artifacts.tables import read_parquet, read_table
from singflow.artifacts.tensors import read_tensors
from singflow.config.public import public_params
from singflow.config.reading import read_yaml
from singflow.config.registry import read_model, read_space
from singflow.data.vocabulary import read_class_list
from singflow.report.content import (
    IMAGES,
    REJECTED,
    SECTIONS,
    data_of,
    embedded,
    images_table,
    links,
    machine,
    page_tables,
    read_caption,
    sentence,
    step_table,
)
from singflow.report.page import libraries, render, sample, space_part
from singflow.report.parameters import Report
from singflow.report.sentences import (
    sample_said,
    seen_by_translators,
    stand_in,
    steering_said,
    warnings,
)

CHECKOUT = Path(__file__).parents[1]
REPORT = CHECKOUT / "report"  # templates, captions and figures of the paper
ANGLES = {"scores", "steering", "concepts", "pictures"}  # analyses with IS or AS


class Flags(Report, cli.Selection):
    analyses: list[str]
    classes: Path
    confidence: float
    min_r2: float
    seed: int


def main(flags: Flags) -> None:
    scored = "scores" in flags.analyses
    csv, figures = (
        {
            Path(name).stem: flags.path(name)
            for name in asked(flags.analyses)
            if re.fullmatch(pattern, name)
        }
        for pattern in (r"tables/.*\.csv", r"figures/.*\.png")
    )
    if "networks" not in flags.analyses:
        figures.pop("fig11", None)  # which shows networks beside the linear translator
    captions = {name: read_caption(REPORT / f"captions/{name}.rst") for name in [*figures, *csv]}
    csv = {name: read_table(path) for name, path in csv.items()}
    models = csv["models"]
    manifest, rejected = read_manifest(flags.path("manifest")), read_table(flags.path("rejected"))
    pairs, several = len(flags.models) * len(flags.spaces), len(flags.spaces) > 1
    shown = sample(len(manifest), pairs, flags.max_images, flags.seed)
    paper = read_yaml(REPORT / "paper.yaml")
    same = as_in_paper(models, manifest["class_index"], paper)
    steered = read_yaml(flags.path("params"))["steering"]["labels"]
    captions |= {"rejected": REJECTED, "images": IMAGES}
    tables = page_tables(csv, rejected, paper, same, steered, captions, several)
    heads = [read_tensors(flags.path("head", model=model), [])[1] for model in flags.models]
    texts = [read_tensors(flags.path("texts", space=space), [])[1] for space in flags.spaces]
    into = [
        read_tensors(flags.path("translator", space=space, model=flags.models[0]), [])[1]
        for space in flags.spaces
    ]
    hashes = [head["weights_sha256"] for head in heads] + [one["space_sha256"] for one in into]
    if scored:
        scores = flags.gather("scores", lambda path: read_parquet(path, "scores").iloc[shown])
        class_names = {
            model: head.parsed("class_names", list | None) or read_class_list(flags.classes)
            for model, head in zip(flags.models, heads, strict=True)
        }
        tables["images"] = images_table(manifest.iloc[shown], scores, class_names, several)
    entries = [read_model(flags.path("model_entry", model=model)) for model in flags.models]
    towers = {
        space: read_space(flags.path("space_entry", space=space)).source for space in flags.spaces
    }
    weights = [entry.weights if entry.source != "features" else "imported" for entry in entries]
    sources = [f"{e.source}: {e.id}, {of}" for e, of in zip(entries, weights, strict=True)]
    drawn = {
        name: embedded(path, captions[name])
        for name, path in figures.items()
        if captions[name].section
    }
    said = {
        name: sentence(table, captions[name], paper, models[same]) for name, table in csv.items()
    }
    if "steering" in csv:
        said["steering"] = steering_said(csv["steering"], models, flags.confidence)
    said["images"] = sample_said(len(shown), len(manifest))
    content = {
        "study": flags.study,
        "scored": scored,
        "angles": not ANGLES.isdisjoint(flags.analyses),
        "models": flags.models,
        "spaces": [space_part(space, csv) for space in flags.spaces],
        "paper_space": paper["space"] in flags.spaces,
        "legend": legend(models["marks"]),
        "stand_in": stand_in(towers),
        "warnings": warnings(models, flags.min_r2),
        "seen": seen_by_translators(models, manifest),
        "counts": {
            "images": len(manifest),
            "labels": manifest["label"].nunique(),
            "rejected": len(rejected),
            "found": len(manifest) + len(rejected),
        },
        "tables": {
            name: data_of(shown, captions[name], said.get(name, ""))
            for name, shown in tables.items()
        },
        "links": links(captions),
        "figures": drawn,
        "sections": {
            section: sorted(
                (name for name in drawn if captions[name].section == section),
                key=lambda name: captions[name].place,
            )
            for section in SECTIONS
        },
        "software": sorted(
            {pair for facts in heads + texts for pair in facts.parsed("software", dict).items()}
        ),
        "precisions": sorted({facts["precision"] for facts in into if "precision" in facts}),
        "weights": [
            *zip([*flags.models, *flags.spaces], [*sources, *towers.values()], hashes, strict=True)
        ],
        "params": public_params(flags.path("params")),
        "libraries": libraries(),
    }
    steps = step_table(flags.results / "benchmarks")
    run = {"study": flags.study, "machine": machine(), "steps": steps}
    write_bytes(flags.results / "logs/run.html", render(REPORT / "run.html", run).encode())
    path, page = flags.path("report.html"), render(REPORT / "page.html", content).encode()
    write_bytes(path, page)
    counts = f", {len(shown)} of {len(manifest)} images one by one" if scored else ""
    cli.log.info("%s: %.1f MB%s", path, len(page) / 1e6, counts)


if __name__ == "__main__":
    cli.run_step(main, Flags)
