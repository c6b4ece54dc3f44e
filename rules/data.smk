rule resolve_study:
    """Write the study as it runs, with all its values."""
    input:
        manifest=at("manifest"),
        params=ancient(local(PARAMS)),
    output:
        params=at("params"),
    log:
        logs("resolve_study"),
    benchmark:
        benchmarks("resolve_study")
    priority: 100  # it checks what the study chooses, before the first tower
    localrule: True
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=SHORT,
    params:
        **step("resolve_study"),
        study=state("study"),
    shell:
        "python {params.program:q} {params.flags} --params {input.params:q} --log {log}"


rule resolve_space:
    """Write the registry entry of a space with the hashes of its files."""
    input:
        files=own_files("space"),
    output:
        entry=at("space_entry"),
    log:
        logs("resolve_space/{space}"),
    benchmark:
        benchmarks("resolve_space/{space}")
    localrule: True
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(1500),
        runtime=SHORT,
    params:
        **step("resolve_space", "weights"),
        entry=state("space"),
    shell:
        "python {params.program:q} {params.flags} --log {log}"


use rule resolve_space as resolve_model with:
    """Write the registry entry of a model with its class names and the hashes of its files."""
    input:
        classes=own("data.classes"),
        files=own_files("model"),
    output:
        entry=at("model_entry"),
    log:
        logs("resolve_model/{model}"),
    benchmark:
        benchmarks("resolve_model/{model}")
    localrule: True
    resources:
        mem_mb=memory(1500),
        runtime=SHORT,
    params:
        **step("resolve_model", "weights data.source data.root data.classes"),
        entry=state("model"),
        images=state("images"),


rule build_manifest:
    """List, draw, check and split the images."""
    input:
        table=own("data.table"),
        classes=own("data.classes"),
    output:
        manifest=at("manifest"),
        rejected=at("rejected"),
    log:
        logs("build_manifest"),
    benchmark:
        benchmarks("build_manifest")
    conda:
        "environment.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory(1300, images=1600),
        runtime=MEDIUM,
        turn=1,
    params:
        **step("build_manifest", "data translator.folds translator.reference seed threads"),
        images=state("images"),
        # It is only checked, so it must not run the step again: Snakemake does not watch a
        # parameter that depends on the output.
        study=lambda wildcards, output: PARAMS,
    shell:
        "python {params.program:q} {params.flags} --params {params.study:q} --log {log}"
