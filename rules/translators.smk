rule fit_projector:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
    output:
        tensors=f"{RESULTS}/projectors/{{model}}.safetensors",
        report=f"{RESULTS}/projectors/{{model}}.json",
    threads: THREADS
    resources:
        **COST,
    params:
        projector=flags("projector"),
        study=config["study"],
    shell:
        "python scripts/fit_projector.py --study {params.study}"
        " --model {wildcards.model} {params.projector}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS} --threads {THREADS}"
        " --manifest {input.manifest} --head {input.head}"
        " --projector {output.tensors} --report {output.report} --log {log}"


rule fit_translator:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
    output:
        tensors=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        report=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.json",
    threads: THREADS
    resources:
        **COST,
    params:
        translator=flags("translator"),
        reference=REFERENCE,
        study=config["study"],
    shell:
        "python scripts/fit_translator.py --study {params.study} --model {wildcards.model}"
        " --space {wildcards.space}"
        " {params.translator} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}}"
        f" --shards {SHARDS} --threads {THREADS}"
        " --translator {output.tensors} --report {output.report} --log {log}"


rule train_translator:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
    output:
        tensors=f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.safetensors",
        report=f"{RESULTS}/translators/{{space}}/{{model}}/{{kind}}.json",
    threads: THREADS
    resources:
        **COST,
        gpu=GPUS,
    params:
        training=flags("training"),
        folder=flags("translator.reference"),
        reference=REFERENCE,
        study=config["study"],
        device=config["extraction"]["device"],
        seed=config["seed"],
    shell:
        "python scripts/train_translator.py --study {params.study} --model {wildcards.model}"
        " --space {wildcards.space}"
        " --kind {wildcards.kind} {params.training} {params.folder} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}}"
        f" --shards {SHARDS} --device {{params.device}} --seed {{params.seed}} --threads {THREADS}"
        " --translator {output.tensors} --report {output.report} --log {log}"
