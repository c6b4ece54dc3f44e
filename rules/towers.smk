rule extract_head:
    """Read the weights of a classifier's head."""
    input:
        entry=at("model_entry"),
        whole=whole("head"),
    output:
        head=at("head"),
    log:
        logs("extract_head/{model}"),
    benchmark:
        benchmarks("extract_head/{model}")
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(6000),
        runtime=SHORT,
        turn=1,
    params:
        **step("extract_head", "data.source data.root"),
        images=state("images"),
    shell:
        "python {params.program:q} {params.flags} --whole {input.whole:q} --log {log}"


rule extract_features:
    """Run a classifier on a shard of the images; its features are the input of the head."""
    input:
        entry=at("model_entry"),
        manifest=at("manifest"),
        whole=whole("features", "head"),
    output:
        features=at("features"),
    log:
        logs("extract_features/{model}/{shard}"),
    benchmark:
        benchmarks("extract_features/{model}/{shard}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(9000, rows=3, images=450),
        runtime=LONG,
        cpus_per_task=decoders,
        gpu=gpus("tower"),
    params:
        **step("extract_features", "extraction data.source data.root data.max_pixels seed threads"),
    shell:
        "python {params.program:q} {params.flags} --whole {input.whole:q} --log {log}"


rule embed_images:
    """Run the image tower of a space on a shard of the images."""
    input:
        entry=at("space_entry"),
        manifest=at("manifest"),
    output:
        embeddings=at("embeddings"),
    log:
        logs("embed_images/{space}/{shard}"),
    benchmark:
        benchmarks("embed_images/{space}/{shard}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(10000, rows=3, images=450),
        runtime=LONG,
        cpus_per_task=decoders,
        gpu=gpus("tower"),
    params:
        **step("embed_images", "extraction data.source data.root data.max_pixels seed threads"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


rule embed_classes:
    """Embed the class names of a head in a space, in two ways to say them."""
    input:
        entry=at("space_entry"),
        head=at("head"),
        texts=at("texts"),
        classes=own("data.classes"),
    output:
        classes=at("classes"),
    log:
        logs("embed_classes/{space}/{model}"),
    benchmark:
        benchmarks("embed_classes/{space}/{model}")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(7000),
        runtime=SHORT,
        turn=1,
    params:
        **step("embed_classes", "prompts extraction.device data.classes threads"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


use rule embed_classes as embed_prompts with:
    """Embed the texts of labels, concepts and targets in a space."""
    input:
        entry=at("space_entry"),
        manifest=at("manifest"),
        vocabulary=own("concepts.vocabulary"),
        classes=own("data.classes"),
    output:
        texts=at("texts"),
        names=at("names"),
    log:
        logs("embed_prompts/{space}"),
    benchmark:
        benchmarks("embed_prompts/{space}")
    priority: 10  # the verdict of every model waits for it
    resources:
        mem_mb=memory(7000),
        runtime=MEDIUM,
        turn=1,
    params:
        **step(
            "embed_prompts",
            "prompts targets=steering.prompts translator.reference extraction.device "
            "concepts.vocabulary data.classes threads",
        ),
        reference=state("reference"),
