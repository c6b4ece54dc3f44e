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


for step in STEPS:

    rule:
        name:
            step.name
        input:
            **step.input,
        output:
            **step.output,
        log:
            step.file("logs", ".log"),
        benchmark:
            step.file("benchmarks", ".tsv")
        priority: 100 * step.local + steps_after(step)
        localrule: step.local
        conda:
            "rules/environment.yaml"
        threads: step.threads or 1
        resources:
            **step.resources,
        params:
            **step.params,
            program=step.program,
        shell:
            COMMAND


rule all:
    default_target: True
    input:
        rules.write_report.output,
        [f"{RESULTS}/{name}" for name in artifacts("tables") + artifacts("figures")],


rule tables:
    input:
        [f"{RESULTS}/{name}" for name in artifacts("tables", ".csv")],
