localrules:
    plot_fig1,
    plot_fig6,
    plot_fig10,
    plot_fig11,
    plot_fig13,


PICTURES = flags(config["pictures"])
PICTURED = for_all("pictures/{space}/{model}.parquet")


rule find_neighbours:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
        code=code_files("find_neighbours"),
    output:
        f"{RESULTS}/neighbours/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/find_neighbours/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/find_neighbours/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("find_neighbours"),
        runtime=minutes("find_neighbours"),
    params:
        exact_up_to=config["pictures"]["exact_up_to"],
    shell:
        "python scripts/find_neighbours.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}} --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator} --exact_up_to {params.exact_up_to}"
        f" --threads {THREADS}"
        " --output {output} --log {log}"


rule render_pictures:
    input:
        generator=generator_files,
        entry=f"{RESULTS}/registry/spaces/{{space}}.json",
        manifest=f"{RESULTS}/data/manifest.parquet",
        head=f"{RESULTS}/features/{{model}}/head.safetensors",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translators=translators_of,
        prompts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
        code=code_files("render_pictures"),
    output:
        f"{RESULTS}/pictures/{{space}}/{{model}}.parquet",
    log:
        f"{RESULTS}/logs/render_pictures/{{space}}/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/render_pictures/{{space}}/{{model}}.tsv"
    threads: THREADS
    resources:
        mem_mb=memory("render_pictures", CUDA_MB),
        runtime=minutes("render_pictures"),
        gpu=generator_gpus,
    params:
        pictures=PICTURES,
        steering=flags(config["steering"]),
        comparison=flags(config["comparison"]),
        images=IMAGES,
        device=config["extraction"]["device"],
    shell:
        "python scripts/render_pictures.py --model {wildcards.model} --space {wildcards.space}"
        " {params.pictures} {params.steering} {params.comparison} {params.images} --device {params.device} --entry {input.entry}"
        f" --features {RESULTS}/features/{{wildcards.model}} --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        f" --translators {RESULTS}/translators/{{wildcards.space}}/{{wildcards.model}} --linear {KIND}"
        " --projector {input.projector} --texts {input.prompts} --names {input.names}"
        " --output {output} --log {log}"


rule plot_fig1:
    input:
        pictures=PICTURED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig1"),
    output:
        png=report(
            f"{RESULTS}/figures/fig1.png",
            caption="../report/fig1.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig1.pdf",
    log:
        f"{RESULTS}/logs/plot_fig1.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig1.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig1"),
        runtime=minutes("plot_fig1"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig1.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig6:
    input:
        pictures=PICTURED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig6"),
    output:
        png=report(
            f"{RESULTS}/figures/fig6.png",
            caption="../report/fig6.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig6.pdf",
    log:
        f"{RESULTS}/logs/plot_fig6.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig6.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig6"),
        runtime=minutes("plot_fig6"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig6.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig10:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        pictures=PICTURED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig10"),
    output:
        table=report(
            f"{RESULTS}/tables/angle_ladder.csv",
            caption="../report/tables/angle_ladder.rst",
            category="Tables",
        ),
        png=report(
            f"{RESULTS}/figures/fig10.png",
            caption="../report/fig10.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig10.pdf",
    log:
        f"{RESULTS}/logs/plot_fig10.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig10.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig10"),
        runtime=minutes("plot_fig10"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig10.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --manifest {input.manifest} --output {output.table}"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig11:
    input:
        pictures=PICTURED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig11"),
    output:
        png=report(
            f"{RESULTS}/figures/fig11.png",
            caption="../report/fig11.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig11.pdf",
    log:
        f"{RESULTS}/logs/plot_fig11.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig11.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig11"),
        runtime=minutes("plot_fig11"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig11.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_fig13:
    input:
        pictures=PICTURED,
        models=rules.summarize.output.models,
        code=code_files("plot_fig13"),
    output:
        png=report(
            f"{RESULTS}/figures/fig13.png",
            caption="../report/fig13.rst",
            category="Figures",
        ),
        pdf=f"{RESULTS}/figures/fig13.pdf",
    log:
        f"{RESULTS}/logs/plot_fig13.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_fig13.tsv"
    threads: 1
    resources:
        mem_mb=memory("plot_fig13"),
        runtime=minutes("plot_fig13"),
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_fig13.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"
