localrules:
    write_report,


FIGURES = [
    rules.plot_fig1.output.png,
    rules.plot_fig4.output.png,
    rules.plot_fig5.output.png,
    rules.plot_fig6.output.png,
    rules.plot_fig7.output.png,
    rules.plot_fig8.output.png,
    rules.plot_fig9.output.png,
    rules.plot_fig10.output.png,
    rules.plot_fig11.output.png,
    rules.plot_fig12.output.png,
    rules.plot_fig13.output.png,
    rules.plot_fig15.output.png,
    rules.plot_controls.output.png,
    rules.plot_rank_curves.output.png,
]
TABLES = [
    rules.summarize.output.models,
    rules.summarize.output.labels,
    rules.summarize.output.correlations,
    rules.compare_models.output.controls,
    rules.compare_models.output.orders,
    rules.compare_models.output.model_pairs,
    rules.list_concepts.output.concepts,
    rules.list_concepts.output.spurious,
    rules.tabulate_steering.output,
    rules.compare_translators.output,
    rules.plot_fig9.output.table,
    rules.plot_fig10.output.table,
    rules.plot_fig12.output.table,
]


rule write_report:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        rejected=f"{RESULTS}/data/rejected.csv",
        classes=config["data"]["classes"],
        entries=for_all("registry/models/{model}.json"),
        spaces=for_all("registry/spaces/{space}.json"),
        heads=for_all("features/{model}/head.safetensors"),
        embeddings=expand(shards("embeddings/{space}"), space=config["spaces"]),
        scores=for_all("scores/{space}/{model}.parquet"),
        neighbours=for_all("neighbours/{space}/{model}.parquet"),
        tables=TABLES,
        figures=FIGURES,
        template="report/report.html",
        run="report/run.html",
        captions=[
            f"report/{name}.rst" for name in map(lambda path: Path(path).stem, FIGURES)
        ],
        paper="report/paper.yaml",
        params="params.yaml",
        code=code_files("write_report"),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/write_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/write_report.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("write_report"),
        runtime=minutes("write_report"),
    params:
        study=config["study"],
        selection=SELECTION,
        report=flags(config["report"]),
        confidence=config["summary"]["confidence"],
        min_r2=config["summary"]["min_r2"],
        source=config["data"]["source"],
        root=config["data"]["root"],
        max_pixels=config["data"]["max_pixels"],
        seed=config["seed"],
    shell:
        "python scripts/write_report.py --study {params.study} {params.selection} {params.report}"
        f" --results {RESULTS} --captions report"
        " --template {input.template} --paper {input.paper} --params {input.params}"
        ' --classes "{input.classes}" --source {params.source} --root "{params.root}" --max_pixels {params.max_pixels}'
        " --confidence {params.confidence} --min_r2 {params.min_r2} --seed {params.seed}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"
