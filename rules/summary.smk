localrules:
    summarize,
    compare_models,
    list_concepts,
    tabulate_steering,
    compare_translators,


SELECTION = flags({key: config[key] for key in ("models", "spaces")})
COMPARISON = flags({"spaces": config["spaces"], **config["comparison"]})
COMPARED = expand(
    f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.json",
    space=config["spaces"],
    model=config["comparison"]["models"],
    kind=[KIND, *config["comparison"]["kinds"]],
)


rule summarize:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        entries=for_all("registry/models/{model}.json"),
        projectors=for_all("projectors/{model}.json"),
        translators=for_all(f"translators/{{space}}/{{model}}/{KIND}.json"),
        scores=for_all("scores/{space}/{model}.parquet"),
        code=code_files("summarize"),
    output:
        models=report(
            f"{RESULTS}/tables/models.csv",
            caption="../report/tables/models.rst",
            category="Tables",
        ),
        labels=report(
            f"{RESULTS}/tables/labels.csv",
            caption="../report/tables/labels.rst",
            category="Tables",
        ),
        correlations=report(
            f"{RESULTS}/tables/label_correlations.csv",
            caption="../report/tables/label_correlations.rst",
            category="Tables",
        ),
        text=f"{RESULTS}/tables/summary.txt",
        metrics=f"{RESULTS}/metrics.json",
    log:
        f"{RESULTS}/logs/summarize.log",
    benchmark:
        f"{RESULTS}/benchmarks/summarize.tsv"
    threads: 1
    resources:
        mem_mb=memory("summarize"),
        runtime=minutes("summarize"),
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


rule compare_models:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        controls=for_all("controls/{space}/{model}.parquet"),
        reports=for_all("controls/{space}/{model}.json"),
        models=rules.summarize.output.models,
        code=code_files("compare_models"),
    output:
        controls=report(
            f"{RESULTS}/tables/controls.csv",
            caption="../report/tables/controls.rst",
            category="Tables",
        ),
        orders=report(
            f"{RESULTS}/tables/orders.csv",
            caption="../report/tables/orders.rst",
            category="Tables",
        ),
        model_pairs=report(
            f"{RESULTS}/tables/model_pairs.csv",
            caption="../report/tables/model_pairs.rst",
            category="Tables",
        ),
        order_agreement=report(
            f"{RESULTS}/tables/order_agreement.csv",
            caption="../report/tables/order_agreement.rst",
            category="Tables",
        ),
        text=f"{RESULTS}/tables/orders.txt",
    log:
        f"{RESULTS}/logs/compare_models.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_models.tsv"
    threads: 1
    resources:
        mem_mb=memory("compare_models"),
        runtime=minutes("compare_models"),
    params:
        selection=SELECTION,
        summary=flags(config["summary"]),
        seed=config["seed"],
    shell:
        "python scripts/compare_models.py {params.selection} {params.summary} --seed {params.seed}"
        f" --manifest {RESULTS}/data/manifest.parquet --controls {RESULTS}/controls --table {{input.models}}"
        f" --tables {RESULTS}/tables"
        " --log {log}"


rule list_concepts:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("list_concepts"),
    output:
        concepts=report(
            f"{RESULTS}/tables/concepts.csv",
            caption="../report/tables/concepts.rst",
            category="Tables",
        ),
        spurious=report(
            f"{RESULTS}/tables/spurious.csv",
            caption="../report/tables/spurious.rst",
            category="Tables",
        ),
    log:
        f"{RESULTS}/logs/list_concepts.log",
    benchmark:
        f"{RESULTS}/benchmarks/list_concepts.tsv"
    threads: 1
    resources:
        mem_mb=memory("list_concepts"),
        runtime=minutes("list_concepts"),
    params:
        selection=SELECTION,
        settings=flags(config["concepts"]),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/list_concepts.py {params.selection} {params.settings} --confidence {params.confidence}"
        f" --concepts {RESULTS}/concepts"
        " --table {input.models} --output {output.concepts} --spurious {output.spurious} --log {log}"


rule tabulate_steering:
    input:
        steering=for_all("steering/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("tabulate_steering"),
    output:
        report(
            f"{RESULTS}/tables/table1.csv",
            caption="../report/tables/table1.rst",
            category="Tables",
        ),
    log:
        f"{RESULTS}/logs/tabulate_steering.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_steering.tsv"
    threads: 1
    resources:
        mem_mb=memory("tabulate_steering"),
        runtime=minutes("tabulate_steering"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/tabulate_steering.py {params.selection}"
        f" --steering {RESULTS}/steering"
        " --table {input.models} --output {output} --log {log}"


rule compare_translators:
    input:
        translators=COMPARED,
        linear=expand(
            f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
            space=config["spaces"],
            model=config["comparison"]["models"],
        ),
        models=rules.summarize.output.models,
        code=code_files("compare_translators"),
    output:
        report(
            f"{RESULTS}/tables/table2.csv",
            caption="../report/tables/table2.rst",
            category="Tables",
        ),
    log:
        f"{RESULTS}/logs/compare_translators.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_translators.tsv"
    threads: 1
    resources:
        mem_mb=memory("compare_translators"),
        runtime=minutes("compare_translators"),
    params:
        selection=COMPARISON,
        min_r2=config["summary"]["min_r2"],
    shell:
        "python scripts/compare_translators.py {params.selection} --min_r2 {params.min_r2}"
        f" --translators {RESULTS}/translators"
        " --table {input.models} --output {output} --log {log}"
