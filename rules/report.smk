SELECTION = flags({key: config[key] for key in ("models", "spaces")})


rule summarize:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        entries=for_all("registry/models/{model}.json"),
        projectors=for_all("projectors/{model}.json"),
        translators=for_all(f"translators/{{space}}/{{model}}/{KIND}.json"),
        scores=for_all("scores/{space}/{model}.parquet"),
        code=code_files("summarize"),
    output:
        models=f"{RESULTS}/tables/models.csv",
        labels=f"{RESULTS}/tables/labels.csv",
        text=f"{RESULTS}/tables/summary.txt",
        metrics=f"{RESULTS}/metrics.json",
    log:
        f"{RESULTS}/logs/summarize.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarize.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    params:
        study=config["study"],
        selection=SELECTION,
        summary=flags(config["summary"]),
        margin=config["extraction"]["top1_margin"],
        seed=config["seed"],
    shell:
        "python scripts/summarize.py --study {params.study} {params.selection} {params.summary} --seed {params.seed}"
        " --top1_margin {params.margin}"
        f" --manifest {RESULTS}/data/manifest.parquet --entries {RESULTS}/registry/models --projectors {RESULTS}/projectors"
        f" --translators {RESULTS}/translators --kind {KIND} --scores {RESULTS}/scores"
        f" --tables {RESULTS}/tables"
        " --metrics {output.metrics} --log {log}"


rule plot_fig3:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig3"),
    output:
        png=report(
            f"{RESULTS}/figures/fig3.png",
            caption="../report/fig3.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig3.pdf",
    log:
        f"{RESULTS}/logs/plot_fig3.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig3.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig3.py {params.selection}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig4:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig4"),
    output:
        png=report(
            f"{RESULTS}/figures/fig4.png",
            caption="../report/fig4.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig4.pdf",
    log:
        f"{RESULTS}/logs/plot_fig4.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig4.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    params:
        selection=SELECTION,
        plot_fig4=flags(config["plot_fig4"]),
    shell:
        "python scripts/plot_fig4.py {params.selection} {params.plot_fig4}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig5:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig5"),
    output:
        png=report(
            f"{RESULTS}/figures/fig5.png",
            caption="../report/fig5.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig5.pdf",
    log:
        f"{RESULTS}/logs/plot_fig5.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig5.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    params:
        selection=SELECTION,
        plot_fig5=flags(config["plot_fig5"]),
    shell:
        "python scripts/plot_fig5.py {params.selection} {params.plot_fig5}"
        f" --concepts {RESULTS}/concepts"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"
