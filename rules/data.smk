localrules:
    resolve_study,
    resolve_model,
    resolve_space,


rule resolve_study:
    input:
        ancient(PARAMS),
    output:
        f"{RESULTS}/params.yaml",
    resources:
        **COST,
    params:
        study=whole_study,
    shell:
        "python scripts/resolve_study.py --params {input} --output {output} --log {log}"


rule resolve_model:
    input:
        local=local_files("model"),
        classes=value("data.classes"),
    output:
        f"{RESULTS}/registry/models/{{model}}.json",
    resources:
        **COST,
    params:
        entry=entry_of("model"),
        weights=config["weights"],
    shell:
        "python scripts/resolve_model.py --registry config/models.yaml --model {wildcards.model}"
        ' --weights {params.weights} --classes "{input.classes}"'
        " --output {output} --log {log}"


rule resolve_space:
    input:
        local=local_files("space"),
    output:
        f"{RESULTS}/registry/spaces/{{space}}.json",
    resources:
        **COST,
    params:
        entry=entry_of("space"),
        weights=config["weights"],
    shell:
        "python scripts/resolve_space.py --registry config/spaces.yaml --space {wildcards.space}"
        " --weights {params.weights} --output {output} --log {log}"


rule build_manifest:
    input:
        table=value("data.table"),
        classes=value("data.classes"),
    output:
        manifest=f"{RESULTS}/data/manifest.parquet",
        rejected=f"{RESULTS}/data/rejected.csv",
    threads: THREADS
    resources:
        **COST,
    params:
        data=flags("data"),
        folds=config["translator"]["folds"],
        fitted_on=config["translator"]["reference"],
        archives=archives,
        seed=config["seed"],
    shell:
        "python scripts/build_manifest.py {params.data} --folds {params.folds}"
        ' --reference "{params.fitted_on}"'
        f" --seed {{params.seed}} --threads {THREADS}"
        " --manifest {output.manifest} --rejected {output.rejected}"
        " --log {log}"
