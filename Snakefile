from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.20")

HERE = workflow.current_basedir.get_path_or_uri(secret_free=True)
if workflow.modifier.namespace:
    raise WorkflowError(
        f"{HERE} is no module: its rules work in their own folder. Let a rule of yours run it, "
        "as docs/installation.md shows, and take files of its results/ as input"
    )
if Path.cwd() != Path(HERE).resolve():
    raise WorkflowError(
        f"this workflow works in its own folder, not in {Path.cwd()}: add `--directory {HERE}`. "
        "A study of your own is a file, "
        "`--configfile <file>`; results are in results/, which may be a link to another drive; "
        "`git clone` makes a second checkout"
    )


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
            "python {params.program} {params.flags} --log {log}"


localrules:
    all,
    tables,


rule all:
    default_target: True
    input:
        rules.write_report.output,
        [f"{RESULTS}/{name}" for name in artifacts("tables") + artifacts("figures")],


rule tables:
    input:
        [f"{RESULTS}/{name}" for name in artifacts("tables", ".csv")],
