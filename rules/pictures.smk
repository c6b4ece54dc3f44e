localrules:
    plot_pictures,
    plot_angle_ladder,


PICTURES = flags("pictures")
PICTURED = for_all("pictures/{space}/{model}.parquet")


rule find_neighbours:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        features=shards("features/{model}"),
        embeddings=shards("embeddings/{space}"),
        projector=f"{RESULTS}/projectors/{{model}}.safetensors",
        translator=f"{RESULTS}/translators/{{space}}/{{model}}/{KIND}.safetensors",
    output:
        f"{RESULTS}/neighbours/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
    params:
        exact_up_to=config["pictures"]["exact_up_to"],
    shell:
        "python scripts/find_neighbours.py --manifest {input.manifest}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        " --projector {input.projector} --translator {input.translator}"
        " --exact_up_to {params.exact_up_to}"
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
        texts=f"{RESULTS}/prompts/{{space}}.safetensors",
        names=f"{RESULTS}/prompts/{{space}}.json",
    output:
        f"{RESULTS}/pictures/{{space}}/{{model}}.parquet",
    threads: THREADS
    resources:
        **COST,
        gpu=generator_gpus,
    params:
        pictures=PICTURES,
        steering=flags("steering"),
        comparison=flags("comparison"),
        root=value("data.root"),
        device=config["extraction"]["device"],
    shell:
        "python scripts/render_pictures.py --model {wildcards.model} --space {wildcards.space}"
        " {params.pictures} {params.steering} {params.comparison}"
        f" {IMAGES} --device {{params.device}} --entry {{input.entry}}"
        f" --features {RESULTS}/features/{{wildcards.model}}"
        f" --embeddings {RESULTS}/embeddings/{{wildcards.space}} --shards {SHARDS}"
        f" --translators {RESULTS}/translators/{{wildcards.space}}/{{wildcards.model}}"
        f" --linear {KIND}"
        " --projector {input.projector} --texts {input.texts} --names {input.names}"
        " --output {output} --log {log}"


rule plot_pictures:
    input:
        pictures=PICTURED,
        models=rules.summarize.output.models,
    output:
        png=png("fig1", "fig6", "fig11", "fig13"),
        pdf=pdf("fig1", "fig6", "fig11", "fig13"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_pictures.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --table {input.models} --png {output.png} --pdf {output.pdf} --log {log}"


rule plot_angle_ladder:
    input:
        manifest=f"{RESULTS}/data/manifest.parquet",
        pictures=PICTURED,
        models=rules.summarize.output.models,
    output:
        table=table("angle_ladder"),
        png=png("fig10"),
        pdf=pdf("fig10"),
    resources:
        **COST,
    params:
        selection=SELECTION,
    shell:
        "python scripts/plot_angle_ladder.py {params.selection}"
        f" --pictures {RESULTS}/pictures"
        " --manifest {input.manifest}"
        " --table {input.models} --output {output.table} --png {output.png} --pdf {output.pdf}"
        " --log {log}"
