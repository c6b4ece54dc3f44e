rule extract_head:
    input:
        entry=f"{RESULTS}/registry/models/{{model}}.json",
    output:
        f"{RESULTS}/features/{{model}}/head.safetensors",
    resources:
        **COST,
    params:
        study=config["study"],
    shell:
        "python scripts/extract_head.py --study {params.study} --model {wildcards.model}"
        " --entry {input.entry}"
        " --output {output} --log {log}"


rule extract_features:
    input:
        entry=f"{RESULTS}/registry/models/{{model}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
    output:
        f"{RESULTS}/features/{{model}}/shard-{{shard}}.safetensors",
    threads: DECODERS
    resources:
        **COST,
        gpu=GPUS,
    params:
        study=config["study"],
        extraction=flags("extraction"),
        root=value("data.root"),
    shell:
        "python scripts/extract_features.py --study {params.study} --model {wildcards.model}"
        " --entry {input.entry}"
        f" --shard {{wildcards.shard}} {{params.extraction}} {IMAGES} --output {{output}}"
        " --log {log}"


rule embed_images:
    input:
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
    output:
        f"{RESULTS}/embeddings/{{space}}/shard-{{shard}}.safetensors",
    threads: DECODERS
    resources:
        **COST,
        gpu=GPUS,
    params:
        study=config["study"],
        extraction=flags("extraction"),
        root=value("data.root"),
    shell:
        "python scripts/embed_images.py --study {params.study} --space {wildcards.space}"
        " --entry {input.entry}"
        f" --shard {{wildcards.shard}} {{params.extraction}} {IMAGES} --output {{output}}"
        " --log {log}"


rule embed_prompts:
    input:
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
        vocabulary=value("concepts.vocabulary"),
    output:
        tensors=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    threads: THREADS
    resources:
        **COST,
    params:
        study=config["study"],
        prompts=flags("prompts"),
        targets=flags(targets="steering.prompts"),
        device=config["extraction"]["device"],
    shell:
        "python scripts/embed_prompts.py --study {params.study} --space {wildcards.space}"
        " --entry {input.entry}"
        " --manifest {input.manifest}"
        ' --vocabulary "{input.vocabulary}" {params.prompts} {params.targets}'
        f" --device {{params.device}} --threads {THREADS}"
        " --output {output.tensors} --names {output.names} --log {log}"


rule embed_classes:
    input:
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        classes=value("data.classes"),
    output:
        f"{RESULTS}/classes/{{space}}/{{model}}.safetensors",
    threads: THREADS
    resources:
        **COST,
    params:
        study=config["study"],
        prompts=flags("prompts"),
        device=config["extraction"]["device"],
    shell:
        "python scripts/embed_classes.py --study {params.study} --space {wildcards.space}"
        " --model {wildcards.model} --entry {input.entry}"
        ' --head {input.head} --classes "{input.classes}" {params.prompts}'
        f" --device {{params.device}} --threads {THREADS}"
        " --output {output} --log {log}"
