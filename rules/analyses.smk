rule measure_controls:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        scores=f"{RESULTS}/controls/{{space}}/{{model}}.parquet",
        report=f"{RESULTS}/controls/{{space}}/{{model}}.json",
    threads: THREADS
    resources:
        **COST,
    params:
        controls=flags(
            "controls.dimensions",
            "controls.min_draws",
            "controls.max_draws",
            "controls.tolerance_deg",
        ),
        seed=config["seed"],
    shell:
        "python scripts/measure_controls.py {params.controls} --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator} --texts {input.texts}"
        " --names {input.names}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --output {output.scores} --report {output.report} --log {log}"


rule measure_evidence:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        classes=f"{RESULTS}/classes/{{space}}/{{model}}.safetensors",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.json",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        report=f"{RESULTS}/evidence/{{space}}/{{model}}.json",
        planted=f"{RESULTS}/evidence/{{space}}/{{model}}.parquet",
        words=f"{RESULTS}/evidence/{{space}}/{{model}}.safetensors",
        images=f"{RESULTS}/evidence_images/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    params:
        study=config["study"],
        evidence=flags("evidence"),
        fitted=flags(
            "translator.lambdas",
            "translator.folds",
            "translator.reference",
            "summary.confidence",
        ),
        reference=REFERENCE,
        seed=config["seed"],
    shell:
        "python scripts/measure_evidence.py --study {params.study} --space {wildcards.space}"
        " --model {wildcards.model}"
        " {params.evidence} {params.fitted} --manifest {input.manifest} --head {input.head}"
        " --classes {input.classes}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator} --texts {input.texts}"
        " --names {input.names}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --report {output.report} --planted {output.planted} --words {output.words}"
        " --images {output.images} --log {log}"


rule measure_head_extension:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        evidence=rules.measure_evidence.output.report,
        words=rules.measure_evidence.output.words,
    output:
        f"{RESULTS}/head_extensions/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    params:
        fitted=flags("translator.reference", "summary.confidence"),
        reference=REFERENCE,
        seed=config["seed"],
    shell:
        "python scripts/measure_head_extension.py {params.fitted} --manifest {input.manifest}"
        " --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        " --projector {input.projector} --evidence {input.evidence} --words {input.words}"
        f" --seed {{params.seed}} --threads {THREADS}"
        " --output {output} --log {log}"


rule measure_null_removal:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        controls=rules.measure_controls.output.scores,
        evidence=rules.measure_evidence.output.images,
    output:
        f"{RESULTS}/scores/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    shell:
        "python scripts/measure_null_removal.py --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --texts {input.texts} --names {input.names} --controls {input.controls}"
        " --evidence {input.evidence}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule measure_zero_shot:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        f"{RESULTS}/zero_shot/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    shell:
        "python scripts/measure_zero_shot.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator} --texts {input.texts}"
        " --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule measure_rank_curve:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        f"{RESULTS}/rank_curves/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    params:
        rank_curve=flags("rank_curve"),
        energy=config["projector"]["energy"],
    shell:
        "python scripts/measure_rank_curve.py {params.rank_curve} --energy {params.energy}"
        " --manifest {input.manifest} --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --translator {input.translator} --texts {input.texts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule validate_null_space:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
    output:
        f"{RESULTS}/null_validation/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
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
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        f"{RESULTS}/concepts/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    shell:
        "python scripts/scan_concepts.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --texts {input.texts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule steer_concepts:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        f"{RESULTS}/steering/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    params:
        steering=flags("steering"),
    shell:
        "python scripts/steer_concepts.py {params.steering} --manifest {input.manifest}"
        " --head {input.head}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --texts {input.texts} --names {input.names}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule probe_principal:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
    output:
        f"{RESULTS}/probes/{{space}}/{{model}}.json",
    threads: THREADS
    resources:
        **COST,
    params:
        probe=flags("probe"),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/probe_principal.py {params.probe} --confidence {params.confidence}"
        " --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"
