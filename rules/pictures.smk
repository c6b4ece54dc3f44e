rule render_pictures:
    """Draw pictures, or find words, for features with and without their null component."""
    input:
        entry=at("space_entry"),
        manifest=at("manifest"),
        head=at("head"),
        features=shards("features"),
        projector=at("projector"),
        translator=at("translator"),
        texts=at("texts"),
        names=at("names"),
        networks=lambda wildcards: [
            path
            for path in every(*asked("network"))
            if f"/{wildcards.space}/{wildcards.model}/" in path
        ],
        generator=own_files("generator"),
    output:
        pictures=at("pictures"),
    log:
        logs("render_pictures/{space}/{model}"),
    benchmark:
        benchmarks("render_pictures/{space}/{model}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(
            2500 if config["pictures"]["renderer"] == "words" else 18000, rows=5, images=1700
        ),
        runtime=SHORT,
        turn=1,
        gpu=gpus("generator"),
    params:
        **step(
            "render_pictures",
            "extraction.shards pictures "
            + ("steering " if asked("figures/fig6.png") else "")
            + ("comparison " if asked("network") else "comparison.models ")
            + "data.source data.root data.max_pixels extraction.device seed threads",
        ),
    shell:
        "python {params.program:q} {params.flags} --log {log}"
