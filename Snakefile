from snakemake.utils import min_version, validate

min_version("9.20")


configfile: "params.yaml"


include: "rules/common.smk"


validate(config, "schemas/params.schema.json", set_default=False)


wildcard_constraints:
    model=alternatives(config["models"]),
    space=alternatives(config["spaces"]),
    shard=r"\d{5}",


include: "rules/data.smk"
include: "rules/features.smk"
include: "rules/geometry.smk"
include: "rules/scores.smk"
include: "rules/report.smk"


localrules:
    all,
    resolve_model,
    resolve_space,
    summarize,
    plot_fig3,
    plot_fig4,
    plot_fig5,


rule all:
    default_target: True
    input:
        rules.summarize.output,
        rules.plot_fig3.output,
        rules.plot_fig4.output,
        rules.plot_fig5.output,
