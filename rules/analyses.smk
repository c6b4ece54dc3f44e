rule measure_controls:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("measure_controls"),
    output:
        scores=f"{RESULTS}/controls/{{space}}/{{model}}.parquet",
        report=f"{RESULTS}/controls/{{space}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/measure_controls/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_controls/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("measure_controls"),
        runtime=minutes("measure_controls"),
    params:
        controls=flags(config["controls"]),
        seed=config["seed"],
    shell:
        "python scripts/measure_controls.py {params.controls} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator} --prompts {input.prompts} --names {input.names}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --output {output.scores} --report {output.report} --log {log}"


rule measure_null_removal:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        controls=rules.measure_controls.output.scores,
        code=code_files("measure_null_removal"),
    output:
        f"{RESULTS}/scores/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/measure_null_removal/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_null_removal/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("measure_null_removal"),
        runtime=minutes("measure_null_removal"),
    shell:
        "python scripts/measure_null_removal.py --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --prompts {input.prompts} --names {input.names} --controls {input.controls}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule measure_rank_curve:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("measure_rank_curve"),
    output:
        f"{RESULTS}/rank_curves/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/measure_rank_curve/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_rank_curve/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("measure_rank_curve"),
        runtime=minutes("measure_rank_curve"),
    params:
        rank_curve=flags(config["rank_curve"]),
        energy=config["projector"]["energy"],
    shell:
        "python scripts/measure_rank_curve.py {params.rank_curve} --energy {params.energy} --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --translator {input.translator} --embeddings {input.prompts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule validate_null_space:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        code=code_files("validate_null_space"),
    output:
        f"{RESULTS}/null_validation/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/validate_null_space/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/validate_null_space/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("validate_null_space"),
        runtime=minutes("validate_null_space"),
    params:
        seed=config["seed"],
    shell:
        "python scripts/validate_null_space.py --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector}"
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
        mem_mb=memory("scan_concepts"),
        runtime=minutes("scan_concepts"),
    shell:
        "python scripts/scan_concepts.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --prompts {input.prompts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule steer_concepts:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("steer_concepts"),
    output:
        f"{RESULTS}/steering/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/steer_concepts/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/steer_concepts/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("steer_concepts"),
        runtime=minutes("steer_concepts"),
    params:
        steering=flags(config["steering"]),
    shell:
        "python scripts/steer_concepts.py {params.steering} --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --embeddings {input.prompts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule probe_principal:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        code=code_files("probe_principal"),
    output:
        f"{RESULTS}/probes/{{space}}/{{model}}.json",
    log:
        f"{RESULTS}/logs/probe_principal/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe_principal/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("probe_principal"),
        runtime=minutes("probe_principal"),
    params:
        probe=flags(config["probe"]),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/probe_principal.py {params.probe} --confidence {params.confidence} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"
