rule summarize:
    input:
        study=ancient(f"{RESULTS}/registry/study.json"),
        manifest=f"{RESULTS}/data/manifest.parquet",
        projectors=for_all("projectors/{model}.json"),
        translators=for_all(f"translators/{{space}}/{{model}}/{KIND}.json"),
        scores=for_all("scores/{space}/{model}.parquet"),
        code=code_of("summarize"),
    output:
        models=f"{RESULTS}/tables/models.csv",
        labels=f"{RESULTS}/tables/labels.csv",
        text=f"{RESULTS}/tables/summary.txt",
        metrics=f"{RESULTS}/metrics.json",
    params:
        selection=[config["models"], config["spaces"]],
        summary=flags(config["summary"]),
        seed=config["seed"],
    log:
        f"{RESULTS}/logs/summarize.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarize.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    shell:
        "python scripts/summarize.py {params.summary} --seed {params.seed}"
        f" --registry {RESULTS}/registry --manifest {RESULTS}/data/manifest.parquet --projectors {RESULTS}/projectors"
        f" --translators {RESULTS}/translators --kind {KIND} --scores {RESULTS}/scores"
        f" --tables {RESULTS}/tables"
        " --metrics {output.metrics} --log {log}"


rule plot_fig3:
    input:
        study=ancient(f"{RESULTS}/registry/study.json"),
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_of("plot_fig3"),
    output:
        png=report(f"{RESULTS}/figures/fig3.png", caption="../report/fig3.rst", category="Figures"),
        pdf=f"{RESULTS}/figures/fig3.pdf",
    params:
        selection=[config["models"], config["spaces"]],
    log:
        f"{RESULTS}/logs/plot_fig3.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig3.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    shell:
        f"python scripts/plot_fig3.py --registry {RESULTS}/registry --scores {RESULTS}/scores"
        " --models {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig4:
    input:
        study=ancient(f"{RESULTS}/registry/study.json"),
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_of("plot_fig4"),
    output:
        png=report(f"{RESULTS}/figures/fig4.png", caption="../report/fig4.rst", category="Figures"),
        pdf=f"{RESULTS}/figures/fig4.pdf",
    params:
        selection=[config["models"], config["spaces"]],
    log:
        f"{RESULTS}/logs/plot_fig4.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig4.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    shell:
        f"python scripts/plot_fig4.py --registry {RESULTS}/registry --scores {RESULTS}/scores"
        " --models {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig5:
    input:
        study=ancient(f"{RESULTS}/registry/study.json"),
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_of("plot_fig5"),
    output:
        png=report(f"{RESULTS}/figures/fig5.png", caption="../report/fig5.rst", category="Figures"),
        pdf=f"{RESULTS}/figures/fig5.pdf",
    params:
        selection=[config["models"], config["spaces"]],
        plot_fig5=flags(config["plot_fig5"]),
    log:
        f"{RESULTS}/logs/plot_fig5.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig5.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
    shell:
        "python scripts/plot_fig5.py {params.plot_fig5}"
        f" --registry {RESULTS}/registry --concepts {RESULTS}/concepts"
        " --models {input.models} --png {output.png} --pdf {output.pdf} --log {log}"
