from snakemake.utils import min_version

min_version("9.20")


configfile: "params.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


wildcard_constraints:
    model=alternatives(config["models"]),
    space=alternatives(config["spaces"]),
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


for step in list(workflow.rules):
    equip(step)


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        rules.write_report.output,
        made("tables", ""),
        made("figures", ""),


rule tables:
    input:
        TABLES,
