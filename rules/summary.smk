rule summarize:
    """Gather all models into tables, metrics and the summary that ends a run."""
    input:
        manifest=at("manifest"),
        rejected=at("rejected"),
        entries=every("model_entry", "space_entry"),
        reports=every("projector_report", "translator_report"),
        measured=every("evidence", *asked("scores", "zero_shot")),
        found=every("evidence_texts", "evidence_groups"),
    output:
        models=captioned("tables/models.csv"),
        labels=captioned("tables/labels.csv"),
        texts=captioned("tables/hidden_texts.csv"),
        groups=captioned("tables/hidden_groups.csv"),
        summary=at("tables/summary.txt"),
        metrics=at("metrics.json"),
    log:
        logs("summarize"),
    benchmark:
        benchmarks("summarize")
    localrule: True
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(1700, images=750),
        runtime=SHORT,
    params:
        **step("summarize", "summary controls models spaces analyses extraction.top1_margin seed"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


use rule summarize as compare_models with:
    """Compare D of models whose heads have one size, and order models as the paper does."""
    input:
        evidence=every("evidence"),
        translators=every("translator_report"),
        models=at("tables/models.csv"),
    output:
        orders=captioned("tables/orders.csv"),
        pairs=captioned("tables/model_pairs.csv"),
    log:
        logs("compare_models"),
    benchmark:
        benchmarks("compare_models")
    localrule: True
    params:
        **step("compare_models", "models spaces analyses summary.confidence"),


use rule summarize as list_concepts with:
    """List the strongest and weakest concepts of every label, and candidates for spurious cues."""
    input:
        concepts=every("concepts"),
        names=every("names"),
        models=at("tables/models.csv"),
    output:
        concepts=captioned("tables/concepts.csv"),
        spurious=captioned("tables/spurious.csv"),
    log:
        logs("list_concepts"),
    benchmark:
        benchmarks("list_concepts")
    localrule: True
    params:
        **step("list_concepts", "models spaces concepts summary.confidence"),


use rule summarize as tabulate_steering with:
    """Summarize steering by model, prompt and target."""
    input:
        steering=every("steering"),
        models=at("tables/models.csv"),
    output:
        steering=captioned("tables/steering.csv"),
    log:
        logs("tabulate_steering"),
    benchmark:
        benchmarks("tabulate_steering")
    localrule: True
    resources:
        mem_mb=memory(1400, images=550 * STEERED),
        runtime=SHORT,
    params:
        **step("tabulate_steering", "models spaces"),


use rule summarize as compare_translators with:
    """Compare linear and nonlinear translators on held-out images."""
    input:
        translators=every("translator", "translator_report", models=config["comparison"]["models"]),
        networks=every("network_report"),
    output:
        table=captioned("tables/translators.csv"),
        metrics=at("tables/translators.json"),
    log:
        logs("compare_translators"),
    benchmark:
        benchmarks("compare_translators")
    localrule: True
    params:
        **step(
            "compare_translators",
            "comparison.models spaces comparison.kinds summary.min_r2 seed",
        ),
