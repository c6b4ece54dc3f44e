rule check_study:
    input:
        params="params.yaml",
        models="models.yaml",
        spaces="spaces.yaml",
        code=code_of("check_study"),
    output:
        study=f"{RESULTS}/registry/study.json",
        models=[f"{RESULTS}/registry/models/{model}.json" for model in config["models"]],
        spaces=[f"{RESULTS}/registry/spaces/{space}.json" for space in config["spaces"]],
    params:
        selection=flags({key: config[key] for key in ("study", "models", "spaces")}),
    log:
        f"{RESULTS}/logs/check_study.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_study.tsv"
    threads: 1
    resources:
        mem_mb=grown(300),
    shell:
        "python scripts/check_study.py {params.selection}"
        " --params {input.params} --models_file {input.models} --spaces_file {input.spaces}"
        f" --output {RESULTS}/registry"
        " --log {log}"


rule build_manifest:
    input:
        study=ancient(f"{RESULTS}/registry/study.json"),
        table=config["data"]["table"] or [],
        classes=config["data"]["classes"],
        code=code_of("build_manifest"),
    output:
        manifest=f"{RESULTS}/data/manifest.parquet",
        rejected=f"{RESULTS}/data/rejected.csv",
    params:
        data=flags(config["data"]),
        seed=config["seed"],
    log:
        f"{RESULTS}/logs/build_manifest.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_manifest.tsv"
    threads: THREADS
    resources:
        mem_mb=grown(1500),
    shell:
        "python scripts/build_manifest.py {params.data}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --manifest {output.manifest} --rejected {output.rejected}"
        " --log {log}"
