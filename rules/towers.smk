IMAGES = (
    f'--manifest {RESULTS}/data/manifest.parquet --source {config["data"]["source"]} --root "{config["data"]["root"]}"'
    f' --max_pixels {config["data"]["max_pixels"]} --seed {config["seed"]} --threads {THREADS}'
)


rule extract_head:
    input:
        entry=f"{RESULTS}/registry/models/{{model}}.json",
        code=code_files("extract_head"),
    output:
        f"{RESULTS}/features/{{model}}/head.safetensors",
    log:
        f"{RESULTS}/logs/extract_head/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract_head/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("extract_head"),
        runtime=minutes("extract_head"),
    params:
        study=config["study"],
    shell:
        "python scripts/extract_head.py --study {params.study} --model {wildcards.model} --entry {input.entry}"
        " --output {output} --log {log}"


rule extract_features:
    input:
        entry=f"{RESULTS}/registry/models/{{model}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
        code=code_files("extract_features"),
    output:
        f"{RESULTS}/features/{{model}}/shard-{{shard}}.safetensors",
    log:
        f"{RESULTS}/logs/extract_features/{{model}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract_features/{{model}}-{{shard}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("extract_features", CUDA_MB),
        runtime=minutes("extract_features"),
        gpu=GPUS,
    params:
        study=config["study"],
        extraction=flags(config["extraction"]),
        images=IMAGES,
    shell:
        "python scripts/extract_features.py --study {params.study} --model {wildcards.model} --entry {input.entry}"
        " --shard {wildcards.shard} {params.extraction} {params.images} --output {output} --log {log}"


rule embed_images:
    input:
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
        code=code_files("embed_images"),
    output:
        f"{RESULTS}/embeddings/{{space}}/shard-{{shard}}.safetensors",
    log:
        f"{RESULTS}/logs/embed_images/{{space}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_images/{{space}}-{{shard}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("embed_images", CUDA_MB),
        runtime=minutes("embed_images"),
        gpu=GPUS,
    params:
        study=config["study"],
        extraction=flags(config["extraction"]),
        images=IMAGES,
    shell:
        "python scripts/embed_images.py --study {params.study} --space {wildcards.space} --entry {input.entry}"
        " --shard {wildcards.shard} {params.extraction} {params.images} --output {output} --log {log}"


rule embed_prompts:
    input:
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
        vocabulary=config["concepts"]["vocabulary"],
        code=code_files("embed_prompts"),
    output:
        tensors=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    log:
        f"{RESULTS}/logs/embed_prompts/{{space}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_prompts/{{space}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("embed_prompts"),
        runtime=minutes("embed_prompts"),
    params:
        study=config["study"],
        prompts=flags(config["prompts"]),
        targets=flags({"targets": config["steering"]["prompts"]}),
        device=config["extraction"]["device"],
    shell:
        "python scripts/embed_prompts.py --study {params.study} --space {wildcards.space} --entry {input.entry}"
        ' --manifest {input.manifest} --vocabulary "{input.vocabulary}" {params.prompts} {params.targets}'
        f" --device {{params.device}} --threads {THREADS}"
        " --output {output.tensors} --names {output.names} --log {log}"
