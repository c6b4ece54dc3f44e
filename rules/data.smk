localrules:
    resolve_model,
    resolve_space,


rule resolve_model:
    input:
        local=local_files("model"),
        classes=config["data"]["classes"],
        code=code_files("resolve_model"),
    output:
        f"{RESULTS}/registry/models/{{model}}.json",
    log:
        f"{RESULTS}/logs/resolve_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/resolve_model/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("resolve_model"),
        runtime=minutes("resolve_model"),
    params:
        entry=entry_of("model"),
        weights=config["weights"],
    shell:
        "python scripts/resolve_model.py --params params.yaml --registry models.yaml --model {wildcards.model}"
        ' --weights {params.weights} --classes "{input.classes}"'
        " --output {output} --log {log}"


rule resolve_space:
    input:
        local=local_files("space"),
        code=code_files("resolve_space"),
    output:
        f"{RESULTS}/registry/spaces/{{space}}.json",
    log:
        f"{RESULTS}/logs/resolve_space/{{space}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/resolve_space/{{space}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("resolve_space"),
        runtime=minutes("resolve_space"),
    params:
        entry=entry_of("space"),
        weights=config["weights"],
    shell:
        "python scripts/resolve_space.py --params params.yaml --registry spaces.yaml --space {wildcards.space}"
        " --weights {params.weights} --output {output} --log {log}"


rule build_manifest:
    input:
        table=config["data"]["table"] or [],
        classes=config["data"]["classes"],
        code=code_files("build_manifest"),
    output:
        manifest=f"{RESULTS}/data/manifest.parquet",
        rejected=f"{RESULTS}/data/rejected.csv",
    log:
        f"{RESULTS}/logs/build_manifest.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_manifest.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("build_manifest"),
        runtime=minutes("build_manifest"),
    params:
        data=flags(config["data"]),
        seed=config["seed"],
    shell:
        "python scripts/build_manifest.py {params.data}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --manifest {output.manifest} --rejected {output.rejected}"
        " --log {log}"
