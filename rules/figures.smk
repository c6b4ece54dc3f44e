localrules:
    plot_fig3,
    plot_fig4,
    plot_fig5,
    plot_fig7,
    plot_fig8,
    plot_fig9,
    plot_fig12,
    plot_fig15,
    plot_controls,
    plot_rank_curves,


rule plot_fig3:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig3"),
    output:
        png=report(
            f"{RESULTS}/figures/fig3.png",
            caption="../report/fig3.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig3.pdf",
    log:
        f"{RESULTS}/logs/plot_fig3.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig3.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig3"),
        runtime=minutes("plot_fig3"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig3.py {params.selection}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig4:
    input:
        scores=for_all("scores/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig4"),
    output:
        png=report(
            f"{RESULTS}/figures/fig4.png",
            caption="../report/fig4.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig4.pdf",
    log:
        f"{RESULTS}/logs/plot_fig4.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig4.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig4"),
        runtime=minutes("plot_fig4"),
    params:
        selection=SELECTION,
        plot_fig4=flags(config["plot_fig4"]),
    shell:
        "python scripts/plot_fig4.py {params.plot_fig4} {params.selection}"
        f" --scores {RESULTS}/scores"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig5:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig5"),
    output:
        png=report(
            f"{RESULTS}/figures/fig5.png",
            caption="../report/fig5.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig5.pdf",
    log:
        f"{RESULTS}/logs/plot_fig5.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig5.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig5"),
        runtime=minutes("plot_fig5"),
    params:
        selection=SELECTION,
        plot_fig5=flags(config["plot_fig5"]),
    shell:
        "python scripts/plot_fig5.py {params.selection} {params.plot_fig5}"
        f" --concepts {RESULTS}/concepts"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig7:
    input:
        translators=COMPARED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig7"),
    output:
        png=report(
            f"{RESULTS}/figures/fig7.png",
            caption="../report/fig7.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig7.pdf",
    log:
        f"{RESULTS}/logs/plot_fig7.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig7.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig7"),
        runtime=minutes("plot_fig7"),
    params:
        selection=COMPARISON,
    shell:
        "python scripts/plot_fig7.py {params.selection}"
        f" --translators {RESULTS}/translators"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig8:
    input:
        translators=COMPARED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig8"),
    output:
        png=report(
            f"{RESULTS}/figures/fig8.png",
            caption="../report/fig8.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig8.pdf",
    log:
        f"{RESULTS}/logs/plot_fig8.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig8.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig8"),
        runtime=minutes("plot_fig8"),
    params:
        selection=COMPARISON,
    shell:
        "python scripts/plot_fig8.py {params.selection}"
        f" --translators {RESULTS}/translators"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig9:
    input:
        validation=for_all("null_validation/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig9"),
    output:
        table=report(
            f"{RESULTS}/tables/validation.csv",
            caption="../report/tables/validation.rst",
            category="Tables",
        ),
        png=report(
            f"{RESULTS}/figures/fig9.png",
            caption="../report/fig9.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig9.pdf",
    log:
        f"{RESULTS}/logs/plot_fig9.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig9.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig9"),
        runtime=minutes("plot_fig9"),
    params:
        models=flags({"models": config["models"]}),
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/plot_fig9.py {params.models} --confidence {params.confidence}"
        f" --validation {RESULTS}/null_validation"
        " --output {output.table}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig12:
    input:
        probes=for_all("probes/{space}/{model}.json"),
        models=rules.summarize.output.models,
        code=code_files("plot_fig12"),
    output:
        table=report(
            f"{RESULTS}/tables/probes.csv",
            caption="../report/tables/probes.rst",
            category="Tables",
        ),
        png=report(
            f"{RESULTS}/figures/fig12.png",
            caption="../report/fig12.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig12.pdf",
    log:
        f"{RESULTS}/logs/plot_fig12.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig12.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig12"),
        runtime=minutes("plot_fig12"),
    params:
        selection=SELECTION,
        confidence=config["summary"]["confidence"],
    shell:
        "python scripts/plot_fig12.py {params.selection} --confidence {params.confidence}"
        f" --probes {RESULTS}/probes"
        " --output {output.table}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig15:
    input:
        concepts=for_all("concepts/{space}/{model}.parquet"),
        spurious=rules.list_concepts.output.spurious,
        models=rules.summarize.output.models,
        code=code_files("plot_fig15"),
    output:
        png=report(
            f"{RESULTS}/figures/fig15.png",
            caption="../report/fig15.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig15.pdf",
    log:
        f"{RESULTS}/logs/plot_fig15.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig15.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig15"),
        runtime=minutes("plot_fig15"),
    params:
        selection=SELECTION,
        plot_fig15=flags(config["plot_fig15"]),
    shell:
        "python scripts/plot_fig15.py {params.selection} {params.plot_fig15}"
        f" --concepts {RESULTS}/concepts"
        " --spurious {input.spurious}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_controls:
    input:
        controls=rules.compare_models.output.controls,
        orders=rules.compare_models.output.orders,
        models=rules.summarize.output.models,
        code=code_files("plot_controls"),
    output:
        png=report(
            f"{RESULTS}/figures/controls.png",
            caption="../report/controls.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/controls.pdf",
    log:
        f"{RESULTS}/logs/plot_controls.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_controls.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_controls"),
        runtime=minutes("plot_controls"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_controls.py {params.selection} --controls {input.controls} --orders {input.orders}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_rank_curves:
    input:
        curves=for_all("rank_curves/{space}/{model}.parquet"),
        models=rules.summarize.output.models,
        code=code_files("plot_rank_curves"),
    output:
        table=report(
            f"{RESULTS}/tables/rank_curves.csv",
            caption="../report/tables/rank_curves.rst",
            category="Tables",
        ),
        png=report(
            f"{RESULTS}/figures/rank_curves.png",
            caption="../report/rank_curves.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/rank_curves.pdf",
    log:
        f"{RESULTS}/logs/plot_rank_curves.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_rank_curves.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_rank_curves"),
        runtime=minutes("plot_rank_curves"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_rank_curves.py {params.selection}"
        f" --curves {RESULTS}/rank_curves"
        " --output {output.table}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"
