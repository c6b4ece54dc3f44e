SHARDS = config["extraction"]["shards"]


rule fit_projector:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        code=code_files("fit_projector"),
    output:
        tensors=f"{RESULTS}/projectors/{{model}}.safetensors",
        report=f"{RESULTS}/projectors/{{model}}.json",
    log:
        f"{RESULTS}/logs/fit_projector/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fit_projector/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("fit_projector"),
        runtime=minutes("fit_projector"),
    params:
        projector=flags(config["projector"]),
        study=config["study"],
    shell:
        "python scripts/fit_projector.py --study {params.study} --model {wildcards.model} {params.projector}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS} --threads {THREADS}"
        " --manifest {input.manifest} --head {input.head}"
        " --projector {output.tensors} --report {output.report} --log {log}"


rule fit_translator:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        code=code_files("fit_translator"),
    output:
        tensors=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        report=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.json",
    log:
        f"{RESULTS}/logs/fit_translator/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fit_translator/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("fit_translator"),
        runtime=minutes("fit_translator"),
    params:
        translator=flags(config["translator"]),
        study=config["study"],
    shell:
        "python scripts/fit_translator.py --study {params.study} --model {wildcards.model} --space {wildcards.space}"
        " {params.translator} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --embeddings {RESULTS}/embeddings/{{wildcards.space}}"
        f" --shards {SHARDS} --threads {THREADS}"
        " --translator {output.tensors} --report {output.report} --log {log}"


rule train_translator:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        code=code_files("train_translator"),
    output:
        tensors=f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.safetensors",
        report=f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.json",
    log:
        f"{RESULTS}/logs/train_translator/{{space}}/{{model}}-{{kind}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_translator/{{space}}/{{model}}-{{kind}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("train_translator", CUDA_MB),
        runtime=minutes("train_translator"),
        gpu=GPUS,
    params:
        training=flags(config["training"]),
        study=config["study"],
        device=config["extraction"]["device"],
        seed=config["seed"],
    shell:
        "python scripts/train_translator.py --study {params.study} --model {wildcards.model} --space {wildcards.space}"
        " --kind {wildcards.kind} {params.training} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --embeddings {RESULTS}/embeddings/{{wildcards.space}}"
        f" --shards {SHARDS} --device {{params.device}} --seed {{params.seed}} --threads {THREADS}"
        " --translator {output.tensors} --report {output.report} --log {log}"
