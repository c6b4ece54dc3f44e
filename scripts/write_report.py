"""Write the page of a study, one file that opens without a network, and a page on its run."""

import base64
from pathlib import Path

from singflow import cli
from singflow.analyses.findings import HIDES, decisions
from singflow.analyses.summary import NOTHING, Controls, with_own_words
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
from singflow.figures import verdicts
from singflow.figures.style import settled, written
from singflow.report.content import embedded, machine, page_tables, photo_scores, step_table
from singflow.report.page import libraries, render, sample, space_part
from singflow.report.parameters import Report
from singflow.report.sentences import (
    probes_said,
    sample_said,
    seen_by_translators,
    stand_in,
    steering_said,
    warnings,
)

CHECKOUT = Path(__file__).parents[1]
REPORT = CHECKOUT / "report"  # templates, captions and figures of the paper
ANGLES = {"scores", "steering", "concepts", "pictures", "paper"}  # analyses with IS or AS


class Flags(Report, Controls, cli.Selection):
    analyses: list[str]
    classes: Path
    confidence: float
    min_r2: float
    seed: int


def main(flags: Flags) -> None:
    scored = "scores" in flags.analyses
    shown_files = {Path(name): flags.path(name) for name in asked(flags.analyses) if "/" in name}
    csv, figures = (
        {name.stem: path for name, path in shown_files.items() if name.match(kind)}
        for kind in ("tables/*.csv", "figures/*.png")
    )
    if "networks" not in flags.analyses:
        figures.pop("fig11", None)  # which shows networks beside the linear translator
    captions = {
        name: " ".join((REPORT / f"captions/{name}.rst").read_text(encoding="utf-8").split())
        for name in [*figures, *csv]
    }
    csv = {name: read_table(path) for name, path in csv.items()}
    models = csv["models"]
    rows = with_own_words(models) if flags.known == "auto" else models
    manifest, rejected = read_manifest(flags.path("manifest")), read_table(flags.path("rejected"))
    pairs, several = len(flags.models) * len(flags.spaces), len(flags.spaces) > 1
    drawn = sample(len(manifest), pairs, flags.max_images, flags.seed)
    paper = read_yaml(REPORT / "paper.yaml")
    same = as_in_paper(models, manifest["class_index"], paper)
    steered = read_yaml(flags.path("params"))["steering"]["labels"]
    shown = read_yaml(REPORT / "page.yaml")
    heads = [read_tensors(flags.path("head", model=model), [])[1] for model in flags.models]
    texts = [read_tensors(flags.path("texts", space=space), [])[1] for space in flags.spaces]
    into = [
        read_tensors(flags.path("translator", space=space, model=flags.models[0]), [])[1]
        for space in flags.spaces
    ]
    hashes = [head["weights_sha256"] for head in heads] + [one["space_sha256"] for one in into]
    if scored:
        scores = flags.gather("scores", lambda path: read_parquet(path, "scores").iloc[drawn])
        class_names = {
            model: head.parsed("class_names", list | None) or read_class_list(flags.classes)
            for model, head in zip(flags.models, heads, strict=True)
        }
        csv["images"] = photo_scores(manifest.iloc[drawn], scores, class_names)
    tables = page_tables(csv, rejected, paper, same, steered, shown, several)
    entries = [read_model(flags.path("model_entry", model=model)) for model in flags.models]
    towers = {
        space: read_space(flags.path("space_entry", space=space)).source for space in flags.spaces
    }
    weights = [entry.weights if entry.source != "features" else "imported" for entry in entries]
    sources = [f"{e.source}: {e.id}, {of}" for e, of in zip(entries, weights, strict=True)]
    titles = {name: title for of in shown["figures"].values() for name, title in of.items()}
    pictures = {
        name: embedded(path, titles[name], captions[name]) for name, path in figures.items()
    }
    said = {"images": sample_said(len(drawn), len(manifest))}
    if "probes" in csv:
        said["probes"] = probes_said(csv["probes"], paper, models[same])
    if "steering" in csv:
        said["steering"] = steering_said(csv["steering"], models, flags.confidence)
    for name, one in tables.items():
        about = captions.get(name) or shown["tables"][name]["about"]
        one["about"] = " ".join(filter(None, [about, said.get(name), one["about"]]))
    figure_of_d = settled(verdicts.draw(rows, flags.confidence))
    content = {
        "study": flags.study,
        "scored": scored,
        "angles": not ANGLES.isdisjoint(flags.analyses),
        "models": flags.models,
        "decisions": decisions(rows, csv["hidden_texts"]),
        "hides": HIDES if (models["verdict"] == NOTHING).any() else "",
        "spaces": [space_part(space, csv, rows) for space in flags.spaces],
        "paper_space": paper["space"] in flags.spaces,
        "legend": legend(rows["marks"]),
        "stand_in": stand_in(towers),
        "warnings": warnings(models, flags.min_r2),
        "seen": seen_by_translators(models, manifest),
        "counts": {
            "images": len(manifest),
            "labels": manifest["label"].nunique(),
            "rejected": len(rejected),
            "found": len(manifest) + len(rejected),
        },
        "tables": tables,
        "links": shown["links"],
        "figures": pictures,
        "sections": {
            section: [name for name in names if name in pictures]
            for section, names in shown["figures"].items()
        },
        "d": base64.b64encode(written(figure_of_d, "svg")).decode(),
        "confidence": f"{100 * flags.confidence:g} %",
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
    steps = step_table(flags.results / "benchmarks", shown["columns"])
    run = {"study": flags.study, "machine": machine(), "steps": steps}
    write_bytes(flags.results / "logs/run.html", render(REPORT / "run.html", run).encode())
    path, page = flags.path("report.html"), render(REPORT / "page.html", content).encode()
    write_bytes(path, page)
    counts = f", {len(drawn)} of {len(manifest)} images one by one" if scored else ""
    cli.log.info("%s: %.1f MB%s", path, len(page) / 1e6, counts)


if __name__ == "__main__":
    cli.run_step(main, Flags)
