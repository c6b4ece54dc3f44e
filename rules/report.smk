localrules:
    write_report,


FIGURES = made("figures", ".png")
TABLES = made("tables", ".csv")


rule write_report:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        rejected=f"{RESULTS}/data/rejected.csv",
        classes=value("data.classes"),
        entries=for_all("registry/models/{model}.json"),
        spaces=for_all("registry/spaces/{space}.json"),
        heads=for_all("features/{model}/head.safetensors"),
        embeddings=expand(shards("embeddings/{space}"), space=config["spaces"]),
        scores=for_all("scores/{space}/{model}.parquet"),
        neighbours=for_all("neighbours/{space}/{model}.parquet"),
        tables=TABLES,
        figures=FIGURES,
        template="report/page.html",
        run="report/run.html",
        captions=sorted(
            {f"report/captions/{Path(path).stem}.rst" for path in FIGURES + TABLES}
        ),
        paper="report/paper.yaml",
        params=rules.resolve_study.output,
        accepted=str(ACCEPTED),
    output:
        f"{RESULTS}/report.html",
    threads: THREADS
    resources:
        **COST,
    params:
        study=config["study"],
        selection=SELECTION,
        report=flags("report"),
        confidence=config["summary"]["confidence"],
        min_r2=config["summary"]["min_r2"],
        source=config["data"]["source"],
        root=value("data.root"),
        max_pixels=config["data"]["max_pixels"],
        seed=config["seed"],
    shell:
        "python scripts/write_report.py --study {params.study} {params.selection} {params.report}"
        f" --results {RESULTS} --captions report/captions"
        " --tables {input.tables} --figures {input.figures}"
        " --template {input.template} --paper {input.paper} --params {input.params}"
        " --accepted {input.accepted}"
        ' --classes "{input.classes}" --source {params.source} --root "{params.root}"'
        " --max_pixels {params.max_pixels}"
        " --confidence {params.confidence} --min_r2 {params.min_r2} --seed {params.seed}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"
