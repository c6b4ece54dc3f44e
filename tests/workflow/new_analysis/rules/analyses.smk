

rule measure_feature_norms:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
    output:
        f"{RESULTS}/feature_norms/{{model}}.parquet",
    resources:
        **COST,
    params:
        feature_norms=flags("feature_norms"),
    shell:
        "python scripts/measure_feature_norms.py {params.feature_norms} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS} --output {{output}} --log {{log}}"


rule plot_feature_norms:
    input:
        feature_norms=for_all("feature_norms/{model}.parquet"),
        models=f"{RESULTS}/tables/models.csv",
    output:
        table=table("feature_norms"),
        png=png("feature_norms"),
        pdf=pdf("feature_norms"),
    resources:
        **COST,
    params:
        models=flags("models"),
    shell:
        "python scripts/plot_feature_norms.py {params.models}"
        f" --feature_norms {RESULTS}/feature_norms"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf} --log {log}"
