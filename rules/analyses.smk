rule measure_evidence:
    """Test whether a null space holds meaning in a space (D), also by text and by group."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        classes=at("classes"),
        features=shards("features"),
        embeddings=shards("embeddings"),
        projector=at("projector"),
        translator=at("translator"),
        report=at("translator_report"),
        texts=at("texts"),
        names=at("names"),
        table=own("data.table"),
        class_list=own("data.classes"),
    output:
        evidence=at("evidence"),
        planted_leaks=at("planted_leaks"),
        own_words=at("own_words"),
        images=at("evidence_images"),
        texts=at("evidence_texts"),
        groups=at("evidence_groups"),
    log:
        logs("measure_evidence/{space}/{model}"),
    benchmark:
        benchmarks("measure_evidence/{space}/{model}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(2500, rows=9, widths=90, images=550),
        runtime=MEDIUM,
        turn=1,
    params:
        **step(
            "measure_evidence",
            "extraction.shards evidence translator.lambdas translator.folds "
            "translator.reference summary.confidence seed data.table class_list=data.classes "
            "threads",
        ),
        reference=state("reference"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


rule measure_scores:
    """Score every image: IS, AS and their relatives."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
        projector=at("projector"),
        translator=at("translator"),
        texts=at("texts"),
        names=at("names"),
        floors=at("evidence_images"),
    output:
        scores=at("scores"),
    log:
        logs("measure_scores/{space}/{model}"),
    benchmark:
        benchmarks("measure_scores/{space}/{model}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(1700, rows=6, widths=6, images=900),
        runtime=SHORT,
        turn=1,
    params:
        **step("measure_scores", "extraction.shards threads"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


use rule measure_scores as measure_zero_shot with:
    """Classify every image by the nearest label, with and without its null component."""
    input:
        manifest=at("manifest"),
        features=shards("features"),
        embeddings=shards("embeddings"),
        projector=at("projector"),
        translator=at("translator"),
        texts=at("texts"),
        names=at("names"),
    output:
        zero_shot=at("zero_shot"),
    log:
        logs("measure_zero_shot/{space}/{model}"),
    benchmark:
        benchmarks("measure_zero_shot/{space}/{model}")
    resources:
        mem_mb=memory(1500, rows=5, widths=2, images=1300),
        runtime=SHORT,
        turn=1,
    params:
        **step("measure_zero_shot", "extraction.shards threads"),


use rule measure_scores as validate_null_space with:
    """Move every feature along null, random and principal directions, and compare the logits."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
        projector=at("projector"),
    output:
        validation=at("null_validation"),
    log:
        logs("validate_null_space/{model}"),
    benchmark:
        benchmarks("validate_null_space/{model}")
    resources:
        mem_mb=memory(1400, rows=3, widths=3, images=1000),
        runtime=SHORT,
        turn=1,
    params:
        **step("validate_null_space", "extraction.shards seed threads"),


use rule measure_scores as scan_concepts with:
    """Measure how near images of a label are to every concept, with and without the null space."""
    input:
        manifest=at("manifest"),
        features=shards("features"),
        projector=at("projector"),
        translator=at("translator"),
        texts=at("texts"),
        names=at("names"),
    output:
        concepts=at("concepts"),
    log:
        logs("scan_concepts/{space}/{model}"),
    benchmark:
        benchmarks("scan_concepts/{space}/{model}")
    resources:
        mem_mb=memory(2000, rows=4, widths=2, images=950),
        runtime=SHORT,
        turn=1,
    params:
        **step("scan_concepts", "extraction.shards threads"),


use rule measure_scores as steer_concepts with:
    """Steer every image along the null space toward the prompts."""
    input:
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
        projector=at("projector"),
        translator=at("translator"),
        texts=at("texts"),
        names=at("names"),
    output:
        steering=at("steering"),
    log:
        logs("steer_concepts/{space}/{model}"),
    benchmark:
        benchmarks("steer_concepts/{space}/{model}")
    resources:
        mem_mb=memory(1400, rows=3, widths=3, images=600 + 400 * STEERED),
        runtime=SHORT,
        turn=1,
    params:
        **step("steer_concepts", "extraction.shards steering threads"),


use rule measure_scores as probe_principal with:
    """Train linear classifiers on principal features, before and after translation."""
    input:
        manifest=at("manifest"),
        features=shards("features"),
        embeddings=shards("embeddings"),
        projector=at("projector"),
        translator=at("translator"),
        report=at("translator_report"),
        table=own("data.table"),
        class_list=own("data.classes"),
    output:
        probes=at("probes"),
    log:
        logs("probe_principal/{space}/{model}"),
    benchmark:
        benchmarks("probe_principal/{space}/{model}")
    resources:
        mem_mb=memory(3000, rows=5, widths=15, images=550),
        runtime=SHORT,
        turn=1,
    params:
        **step(
            "probe_principal",
            "extraction.shards probe evidence.groups translator.folds translator.reference "
            "summary.confidence data.table class_list=data.classes threads",
        ),
        reference=state("reference"),
