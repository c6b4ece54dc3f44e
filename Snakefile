from snakemake.utils import min_version

min_version("9.20")


configfile: "params.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


wildcard_constraints:
    model="|".join(map(re.escape, config["models"])),
    space="|".join(map(re.escape, config["spaces"])),
    shard=r"\d{5}",
    kind="mlp3|mlp4|residual",


include: "rules/data.smk"
include: "rules/towers.smk"
include: "rules/translators.smk"
include: "rules/analyses.smk"
include: "rules/summary.smk"
include: "rules/figures.smk"
include: "rules/pictures.smk"
include: "rules/report.smk"


rule data:
    """Registry entries and the manifest of images."""
    input:
        every(*tier("data")),


rule towers:
    """Features, heads, embeddings and texts."""
    input:
        every(*tier("towers")),


rule translators:
    """Null spaces and translators."""
    input:
        every(*tier("translators")),


rule analyses:
    """Whatever is measured of every model."""
    input:
        every(*tier("analyses")),


rule verdict:
    """The answer: D, hidden texts and groups, and the summary."""
    input:
        every("evidence", "evidence_texts", "evidence_groups"),
        at("tables/summary.txt"),


rule report:
    """The page, tables, figures and metrics."""
    input:
        every(*tier("report")),


rule all:
    """Everything that params.yaml asks for (the default)."""
    default_target: True
    input:
        rules.report.input,
