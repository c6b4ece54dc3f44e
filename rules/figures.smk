localrules:
    plot_scores,
    plot_labels,
    plot_concepts,
    plot_translators,
    plot_null_validation,
    plot_probes,
    plot_concept_scans,
    plot_controls,
    plot_rank_curves,
    plot_head_extensions,


rule plot_scores:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        png=png("fig3"),
        pdf=pdf("fig3"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_scores.py {params.selection}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_labels:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        png=png("fig4"),
        pdf=pdf("fig4"),
    resources:
        **COST,
    params:
        selection=SELECTION,
        plot_labels=flags("plot_labels"),
    shell:
        "python scripts/plot_labels.py {params.plot_labels} {params.selection}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_concepts:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        png=png("fig5"),
        pdf=pdf("fig5"),
    resources:
        **COST,
    params:
        selection=SELECTION,
        plot_concepts=flags("plot_concepts"),
    shell:
        "python scripts/plot_concepts.py {params.selection} {params.plot_concepts}"
        f" --concepts {RESULTS}/concepts"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_translators:
    input:
        translators=COMPARED,
        models=rules.summarize.output.models,
    output:
        png=png("fig7", "fig8"),
        pdf=pdf("fig7", "fig8"),
    resources:
        **COST,
    params:
        selection=COMPARISON,
    shell:
        "python scripts/plot_translators.py {params.selection}"
        f" --translators {RESULTS}/translators"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_null_validation:
    input:
        null_validation=for_all("null_validation/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        table=table("null_validation"),
        png=png("fig9"),
        pdf=pdf("fig9"),
    resources:
        **COST,
    params:
        models=flags("models"),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/plot_null_validation.py {params.models} --confidence {params.confidence}"
        f" --null_validation {RESULTS}/null_validation"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf}"
        " --log {log}"


rule plot_probes:
    input:
        probes=for_all("probes/{space}/{model}.json"),
        models=rules.summarize.output.models,
    output:
        table=table("probes"),
        png=png("fig12"),
        pdf=pdf("fig12"),
    resources:
        **COST,
    params:
        selection=SELECTION,
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/plot_probes.py {params.selection} --confidence {params.confidence}"
        f" --probes {RESULTS}/probes"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf}"
        " --log {log}"


rule plot_concept_scans:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        spurious=rules.list_concepts.output.spurious,
        models=rules.summarize.output.models,
    output:
        png=png("fig15"),
        pdf=pdf("fig15"),
    resources:
        **COST,
    params:
        selection=SELECTION,
        plot_concept_scans=flags("plot_concept_scans"),
    shell:
        "python scripts/plot_concept_scans.py {params.selection} {params.plot_concept_scans}"
        f" --concepts {RESULTS}/concepts"
        " --spurious {input.spurious}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_controls:
    input:
        controls=rules.compare_models.output.controls,
        models=rules.summarize.output.models,
    output:
        png=png("controls"),
        pdf=pdf("controls"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_controls.py {params.selection} --controls {input.controls}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_rank_curves:
    input:
        rank_curves=for_all("rank_curves/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        table=table("rank_curves"),
        png=png("rank_curves"),
        pdf=pdf("rank_curves"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_rank_curves.py {params.selection}"
        f" --rank_curves {RESULTS}/rank_curves"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf}"
        " --log {log}"


rule plot_head_extensions:
    input:
        head_extensions=for_all("head_extensions/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
    output:
        table=table("head_extensions"),
        png=png("head_extensions"),
        pdf=pdf("head_extensions"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_head_extensions.py {params.selection}"
        f" --head_extensions {RESULTS}/head_extensions"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf}"
        " --log {log}"
