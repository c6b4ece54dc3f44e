SHOWN = asked(*(name for name in CATALOG if name.endswith((".csv", ".png", ".svg"))))
TEMPLATES = ("report/page.html", "report/run.html", "report/page.yaml", "report/paper.yaml")


rule write_report:
    """Write the page that holds the study in one file."""
    input:
        params=at("params"),
        entries=every("model_entry", "space_entry"),
        made=every("manifest", "rejected", "head", "texts", "translator", *asked("scores")),
        shown=every(*(name for name in SHOWN if name.startswith(("tables/", "figures/")))),
        classes=own("data.classes"),
        templates=[shipped(name) for name in TEMPLATES],
        captions=sorted(
            {shipped(f"report/captions/{Path(name).stem}.rst") for name in SHOWN if "/" in name}
        ),
    output:
        page=at("report.html"),
    log:
        logs("write_report"),
    benchmark:
        benchmarks("write_report")
    localrule: True
    conda:
        "environment.yaml"
    resources:
        mem_mb=memory(1800, images=650),
        runtime=SHORT,
    params:
        **step(
            "write_report",
            "report controls models spaces analyses summary.confidence summary.min_r2 seed "
            "data.classes",
        ),
    shell:
        "python {params.program:q} {params.flags} --log {log}"
