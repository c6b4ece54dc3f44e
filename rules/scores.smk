rule measure_null_removal:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("measure_null_removal"),
    output:
        f"{RESULTS}/scores/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/measure_null_removal/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_null_removal/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=grown(3000),
    params:
        null_removal=flags(config["null_removal"]),
        seed=config["seed"],
    shell:
        "python scripts/measure_null_removal.py {params.null_removal} --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --prompts {input.prompts} --names {input.names}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --output {output} --log {log}"


rule scan_concepts:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("scan_concepts"),
    output:
        f"{RESULTS}/concepts/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/scan_concepts/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/scan_concepts/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=grown(3000),
    shell:
        "python scripts/scan_concepts.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --prompts {input.prompts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"
