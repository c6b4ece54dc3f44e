localrules:
    summarize,
    compare_models,
    list_concepts,
    tabulate_steering,
    compare_translators,


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
        zero_shot=for_all("zero_shot/{space}/{model}.parquet"),
        evidence=for_all("evidence/{space}/{model}.json"),
    output:
        models=table("models"),
        labels=table("labels"),
        correlations=table("label_correlations"),
        text=f"{RESULTS}/tables/summary.txt",
        metrics=f"{RESULTS}/metrics.json",
    resources:
        **COST,
    params:
        study=config["study"],
        selection=SELECTION,
        summary=flags("summary"),
        null_energy=flags("null_energy"),
        margin=config["extraction"]["top1_margin"],
        seed=config["seed"],
    shell:
        "python scripts/summarize.py"
        " --study {params.study} {params.selection} {params.summary} {params.null_energy}"
        " --seed {params.seed}"
        " --top1_margin {params.margin}"
        f" --manifest {RESULTS}/data/manifest.parquet --entries {RESULTS}/registry/models"
        f" --projectors {RESULTS}/projectors"
        f" --translators {RESULTS}/translators --kind {KIND} --scores {RESULTS}/scores"
        f" --zero_shot {RESULTS}/zero_shot"
        f" --evidence {RESULTS}/evidence"
        f" --tables {RESULTS}/tables"
        " --metrics {output.metrics} --log {log}"


rule compare_models:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        controls=for_all("controls/{space}/{model}.parquet"),
        reports=for_all("controls/{space}/{model}.json"),
        evidence=for_all("evidence/{space}/{model}.json"),
        models=rules.summarize.output.models,
        paper="report/paper.yaml",
    output:
        controls=table("controls"),
        orders=table("orders"),
        model_pairs=table("model_pairs"),
        order_agreement=table("order_agreement"),
        text=f"{RESULTS}/tables/orders.txt",
    resources:
        **COST,
    params:
        selection=SELECTION,
        summary=flags("summary"),
        seed=config["seed"],
    shell:
        "python scripts/compare_models.py {params.selection} {params.summary} --seed {params.seed}"
        f" --manifest {RESULTS}/data/manifest.parquet --controls {RESULTS}/controls"
        f" --evidence {RESULTS}/evidence --table {{input.models}} --paper {{input.paper}}"
        f" --tables {RESULTS}/tables"
        " --log {log}"


rule list_concepts:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        concepts=table("concepts"),
        spurious=table("spurious"),
    resources:
        **COST,
    params:
        selection=SELECTION,
        settings=flags("concepts"),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/list_concepts.py {params.selection} {params.settings}"
        " --confidence {params.confidence}"
        f" --concepts {RESULTS}/concepts"
        " --table {input.models} --output {output.concepts} --spurious {output.spurious}"
        " --log {log}"


rule tabulate_steering:
    input:
        steering=for_all("steering/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        table("steering"),
    resources:
        **COST,
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
    output:
        table=table("translators"),
        metrics=f"{RESULTS}/tables/translators.json",
    resources:
        **COST,
    params:
        selection=COMPARISON,
        min_r2=config["summary"]["min_r2"],
        seed=config["seed"],
    shell:
        "python scripts/compare_translators.py {params.selection} --min_r2 {params.min_r2}"
        " --seed {params.seed}"
        f" --translators {RESULTS}/translators"
        " --output {output.table} --metrics {output.metrics} --log {log}"
