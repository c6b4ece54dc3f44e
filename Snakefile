from snakemake.utils import min_version, validate

min_version("9.20")


configfile: "params.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


validate(config, "schemas/params.schema.json", set_default=False)


wildcard_constraints:
    model=alternatives(config["models"]),
    space=alternatives(config["spaces"]),
    shard=r"\d{5}",
    kind="mlp3|mlp4|residual",


include: "rules/data.smk"
include: "rules/features.smk"
include: "rules/geometry.smk"
include: "rules/scores.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/pictures.smk"
include: "rules/report.smk"


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        rules.summarize.output,
        rules.compare_models.output,
        rules.list_concepts.output,
        rules.tabulate_steering.output,
        rules.compare_translators.output,
        rules.plot_fig1.output,
        rules.plot_fig3.output,
        rules.plot_fig4.output,
        rules.plot_fig5.output,
        rules.plot_fig6.output,
        rules.plot_fig7.output,
        rules.plot_fig8.output,
        rules.plot_fig9.output,
        rules.plot_fig10.output,
        rules.plot_fig11.output,
        rules.plot_fig12.output,
        rules.plot_fig13.output,
        rules.plot_fig15.output,
        rules.plot_controls.output,
        rules.plot_rank_curves.output,
        rules.write_report.output,


rule tables:
    input:
        TABLES,
        rules.plot_rank_curves.output.table,
