rule plot_scores:
    """Plot IS and AS of every model (figure 3); the other figures follow this rule."""
    input:
        scores=every("scores"),
        models=at("tables/models.csv"),
    output:
        fig3=figure("fig3"),
    log:
        logs("plot_scores"),
    benchmark:
        benchmarks("plot_scores")
    localrule: True
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(1500, images=400 * len(config["models"]) * len(config["spaces"])),
        runtime=SHORT,
    params:
        **step("plot_scores", "models spaces"),
    shell:
        "python {params.program} {params.flags} --log {log}"


use rule plot_scores as plot_labels with:
    """Plot AS by label (figure 4)."""
    input:
        scores=every("scores"),
        models=at("tables/models.csv"),
    output:
        fig4=figure("fig4"),
    log:
        logs("plot_labels"),
    benchmark:
        benchmarks("plot_labels")
    localrule: True  # which `use rule` does not pass on
    params:
        **step("plot_labels", "models spaces plot_labels.labels"),


use rule plot_scores as plot_concepts with:
    """Plot concepts of a label by angle and AS (figures 5, 15 and 16)."""
    input:
        concepts=every("concepts"),
        names=every("names"),
        spurious=at("tables/spurious.csv"),
        models=at("tables/models.csv"),
    output:
        fig5=figure("fig5"),
    log:
        logs("plot_concepts"),
    benchmark:
        benchmarks("plot_concepts")
    localrule: True
    params:
        **step("plot_concepts", "plot_concepts models spaces"),


use rule plot_scores as plot_translators with:
    """Plot linear and nonlinear translators (figures 7 and 8)."""
    input:
        reports=every("translator_report", "network_report", models=config["comparison"]["models"]),
        models=at("tables/models.csv"),
    output:
        fig7=figure("fig7"),
        fig8=figure("fig8"),
    log:
        logs("plot_translators"),
    benchmark:
        benchmarks("plot_translators")
    localrule: True
    params:
        **step("plot_translators", "comparison.models spaces comparison.kinds"),


use rule plot_scores as plot_null_validation with:
    """Plot how logits change along null, random and principal directions (figure 9)."""
    input:
        validation=every("null_validation"),
        models=at("tables/models.csv"),
    output:
        table=captioned("tables/null_validation.csv"),
        fig9=figure("fig9"),
    log:
        logs("plot_null_validation"),
    benchmark:
        benchmarks("plot_null_validation")
    localrule: True
    params:
        **step("plot_null_validation", "models summary.confidence"),


use rule plot_scores as plot_probes with:
    """Plot the accuracy of probes before and after translation (figure 12)."""
    input:
        probes=every("probes"),
        models=at("tables/models.csv"),
    output:
        table=captioned("tables/probes.csv"),
        fig12=figure("fig12"),
    log:
        logs("plot_probes"),
    benchmark:
        benchmarks("plot_probes")
    localrule: True
    params:
        **step("plot_probes", "models spaces summary.confidence"),


use rule plot_scores as plot_hidden_texts with:
    """Plot the texts and groups of images that a null space was found to hide."""
    input:
        texts=at("tables/hidden_texts.csv"),
        groups=at("tables/hidden_groups.csv"),
        models=at("tables/models.csv"),
    output:
        hidden_texts=figure("hidden_texts"),
    log:
        logs("plot_hidden_texts"),
    benchmark:
        benchmarks("plot_hidden_texts")
    localrule: True
    params:
        **step("plot_hidden_texts", "models spaces"),


use rule plot_scores as plot_pictures with:
    """Show photos, and what their features mean before and after null removal (figure 1)."""
    input:
        pictures=every("pictures"),
        models=at("tables/models.csv"),
    output:
        fig1=figure("fig1"),
    log:
        logs("plot_pictures"),
    benchmark:
        benchmarks("plot_pictures")
    localrule: True
    params:
        **step("plot_pictures", "models spaces"),


use rule plot_scores as plot_closeups with:
    """Show photos of one model, changed in other ways (figures 6, 10, 11 and 13)."""
    input:
        manifest=at("manifest"),
        pictures=every("pictures"),
        models=at("tables/models.csv"),
    output:
        table=captioned("tables/angle_ladder.csv"),
        fig6=figure("fig6"),
        fig10=figure("fig10"),
        fig11=figure("fig11"),
        fig13=figure("fig13"),
    log:
        logs("plot_closeups"),
    benchmark:
        benchmarks("plot_closeups")
    localrule: True
    params:
        **step("plot_closeups", "models spaces"),
