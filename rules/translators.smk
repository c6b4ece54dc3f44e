rule fit_projector:
    """Split the feature space of a model into principal and null space."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
    output:
        projector=at("projector"),
        report=at("projector_report"),
    log:
        logs("fit_projector/{model}"),
    benchmark:
        benchmarks("fit_projector/{model}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(1500, rows=5, widths=7, images=700),
        runtime=SHORT,
        turn=1,
    params:
        **step("fit_projector", "extraction.shards projector threads"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


use rule fit_projector as fit_translator with:
    """Fit the linear translators of a model into a space, one a fold."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
        embeddings=shards("embeddings"),
    output:
        translator=at("translator"),
        report=at("translator_report"),
    log:
        logs("fit_translator/{space}/{model}"),
    benchmark:
        benchmarks("fit_translator/{space}/{model}")
    resources:
        mem_mb=memory(1500, rows=9, widths=22, images=550),
        runtime=SHORT,
        turn=1,
    params:
        **step("fit_translator", "extraction.shards translator threads"),
        reference=state("reference"),


use rule fit_projector as train_translator with:
    """Train a nonlinear translator, to compare it with the linear one."""
    input:
        manifest=at("manifest"),
        features=shards("features"),
        embeddings=shards("embeddings"),
        report=at("translator_report"),
    output:
        network=at("network"),
        report=at("network_report"),
    log:
        logs("train_translator/{space}/{model}/{kind}"),
    benchmark:
        benchmarks("train_translator/{space}/{model}/{kind}")
    resources:
        mem_mb=memory(6000, all_rows=3, images=750),
        runtime=LONG,
        gpu=gpus("network"),
    params:
        **step(
            "train_translator",
            "extraction.shards training translator.reference extraction.device seed threads",
        ),
        reference=state("reference"),
