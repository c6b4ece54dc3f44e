"""What git keeps of the rules and the catalog: stages, groups of jobs on Slurm, tables in the docs.

`python -m singflow.engines.stages` writes dvc.yaml, slurm/config.yaml and docs/artifacts.md.
"""

from __future__ import annotations

import io
import re
import sys
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from singflow.artifacts.catalog import CATALOG, IN_GIT
from singflow.engines.code import FILE

if TYPE_CHECKING:
    from snakemake.rules import Rule

FIRST = "check_study"  # the stage before all others, which only DVC needs
WHY = "Always runs, and `dvc status` always lists it: it also checks files that DVC does not track."
ITEMS = {
    "space": "spaces",
    "model": "models",
    "kind": "comparison.kinds",
    "shard": "extraction.shard_ids",
}  # wildcard -> key of its values
PLACEHOLDER = re.compile(r"\$\(([\w.]+)\)")  # Snakemake would take braces for wildcards
BUNDLE = re.compile(r"\$\(item\.flags ([^)]*)\)")
ITEM = re.compile(r"\$\(item\.(\w+)\)")
METRICS = ("/metrics.json", "/tables/translators.json")


def placeholders(section: type[Any], key: str = "") -> Any:
    """A study in which every value is a placeholder for its key, as in `$(data.root)`.

    Lists hold one placeholder; those in ITEMS, one as in `$(item.model)`.
    """
    items = {values: f"$(item.{name})" for name, values in ITEMS.items()}
    items["comparison.models"] = "$(item.model)"
    study: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        full, kind = f"{key}.{name}" if key else name, field.annotation
        if hasattr(kind, "model_fields"):
            study[name] = placeholders(kind, full)
        else:
            text = items.get(full, f"$({full})")
            a_list = any(get_origin(one) is list for one in (kind, *get_args(kind)))
            study[name] = [text] if a_list else text
    return study


def read_rules(root: Path) -> list[Rule]:
    """The rules of the steps of a checkout, with placeholders for the values of the study."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings import types
    from snakemake.workflow import Workflow

    from singflow.study import Params

    study = placeholders(Params) | {"for_dvc": ()}
    config = types.ConfigSettings(config=study, replace_workflow_config=True)
    with SnakemakeApi(types.OutputSettings(quiet={types.Quietness.ALL})) as api, chdir(root):
        workflow = Workflow(
            config,
            types.ResourceSettings(cores=1),
            types.WorkflowSettings(),
            api.logger_manager,
            storage_settings=types.StorageSettings(),
            deployment_settings=types.DeploymentSettings(),
            output_settings=api.output_settings,
            group_settings=types.GroupSettings(),
        )
        workflow.include(str(root.resolve() / "Snakefile"), overwrite_default_target=True)
        return [rule for rule in workflow.rules if rule.shellcmd]


def stages_of(rules: list[Rule]) -> dict[str, Any]:
    """The stages by name, as dvc.yaml holds them, in the order of the rules."""
    steps = {rule.name: _stage(rule) for rule in rules}
    first = {
        "desc": WHY,
        "cmd": f"python scripts/{FIRST}.py --params params.yaml --output {FILE}",
        "always_changed": True,
        "outs": [{str(FILE): {"cache": False}}],
    }
    return {FIRST: first} | steps


def _stage(rule: Rule) -> dict[str, Any]:
    from snakemake.iocontainers import Wildcards
    from snakemake.utils import format as fill

    names = [name for name in ITEMS if name in rule.wildcard_names]
    wildcards = Wildcards(fromdict={name: f"$(item.{name})" for name in names})
    inputs = rule.expand_input(wildcards)[0]
    outputs = rule.expand_output(wildcards)[0]
    params = rule.expand_params(wildcards, inputs, outputs, None)[0]
    command = fill(
        rule.shellcmd,
        input=inputs,
        output=outputs,
        params=params,
        wildcards=wildcards,
        log=rule.expand_log(wildcards),
        threads="$(threads)",
    )
    digests = [rule.name, *(name for name in ("reference", "archives") if hasattr(params, name))]
    # These inputs are lists of files that depend on the study. DVC has no such lists, so its stages
    # depend on a digest of the files.
    digests += ["own_files"] if {"local", "generator"} & set(inputs.keys()) else []
    bundled = " ".join(BUNDLE.findall(command))
    bundle = dict(pair.split("=") for pair in bundled.split())
    shape: dict[str, Any] = {name: _key(ITEMS[name]) for name in names}
    if "kind" in names:
        shape["model"] = _key("comparison.models")
    values = {name: _key(key) for name, key in bundle.items()}
    of_bundle = next(iter(bundle.values()), "").partition(".")[0]
    command = BUNDLE.sub(f"$(item.{of_bundle})" if names else "$(item)", command)
    files = dict.fromkeys(_place(str(path), names) for path in inputs)
    # Keys in paths are left out: deps and outs cover them.
    words = " ".join(word for word in command.split() if "results/" not in word)
    keys = dict.fromkeys([*PLACEHOLDER.findall(words), *bundle.values()])
    body: dict[str, Any] = {
        "cmd": _dollars(" ".join(command.split())),
        "deps": [
            _dollars(path)
            for path in files
            if not any(path.startswith(f"{folder}/") for folder in files)
        ],
        "params": [*(key for key in keys if key.partition(".")[0] != "item"), {str(FILE): digests}],
    }
    for output in outputs:
        out = _dollars(str(output))
        kept = {out: {"cache": False}} if _below_results(out) in IN_GIT else out
        body.setdefault("metrics" if out.endswith(METRICS) else "outs", []).append(kept)
    if names:
        return {"matrix": shape | ({of_bundle: [values]} if bundle else {})} | body
    return {"foreach": {"study": values}, "do": body} if bundle else body


def _key(key: str) -> str:
    return f"${{{key}}}"


def _dollars(text: str) -> str:
    """A text with DVC's `${key}` in place of `$(key)`."""
    return PLACEHOLDER.sub(r"${\1}", text)


def _below_results(path: str) -> str:
    """An artifact's path below results/<study>/."""
    return path.split("/", 2)[2]


def _place(path: str, names: list[str]) -> str:
    """A path of a stage, or the folder above the items that the stage does not iterate over."""
    for item in ITEM.finditer(path):
        if item[1] not in names:
            return path[: item.start()].rpartition("/")[0]
    return path


def pipeline(file: Path, rules: list[Rule]) -> str:
    """The text for dvc.yaml: stages from the rules, every figure as a plot, the rest unchanged."""
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import FoldedScalarString

    def folded(command: str) -> FoldedScalarString:
        """A command with one line per flag."""
        text = FoldedScalarString(command)
        text.fold_pos = [space.start() for space in re.finditer(" (?=--)", command)]
        return text

    stages = stages_of(rules)
    for stage in stages.values():
        body = stage.get("do", stage)
        body["cmd"] = folded(body["cmd"])
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(file)
    content["stages"] = stages
    outs = [out for stage in stages.values() for out in stage.get("do", stage)["outs"]]
    figures = [out for out in outs if isinstance(out, str) and out.endswith(".png")]
    content["plots"] = [plot for plot in content["plots"] if not isinstance(plot, str)] + figures
    text = io.StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def profile(file: Path, rules: list[Rule]) -> str:
    """The text for slurm/config.yaml: groups of jobs and GPUs by the catalog, the rest unchanged.

    GPUs are a comment, which is left alone once a user has made settings of it.
    """
    from snakemake.io import strip_wildcard_constraints

    artifacts = {artifact.path: artifact for artifact in CATALOG.values()}
    made = {
        rule.name: artifacts[_below_results(strip_wildcard_constraints(rule.output[0]))]
        for rule in rules
    }
    groups = {name: one.group for name, one in made.items() if one.group not in ("local", "")}
    shared = {one.group for one in made.values() if one.gpu} - {""}
    first, *others = (name for name, one in made.items() if one.gpu or one.group in shared)
    requests = {first: '&gpu {gpu: 0, gres: "gpu:1"}'} | dict.fromkeys(others, "*gpu")
    text = file.read_text(encoding="utf-8")
    for mark, key, values in (("# ", "set-resources", requests), ("", "groups", groups)):
        lines = [f"{mark}  {name}: {value}\n" for name, value in values.items()]
        block = rf"^({mark}{key}:\n)(?:{mark}  .*\n)*"
        text = re.sub(block, "".join([r"\1", *lines]), text, flags=re.MULTILINE)
    return text


def page(file: Path, rules: list[Rule]) -> str:
    """The text for docs/artifacts.md: both tables from the catalog, the rest unchanged."""
    text, tables, others = file.read_text(encoding="utf-8"), [], []
    for artifact in CATALOG.values():
        path, about = Path(artifact.path), artifact.about.replace("|", r"\|")
        if path.match("tables/*.csv"):
            tables.append(f"| `{path.name}` | {about} |\n")
        elif about:
            place = artifact.path.replace("{", "<").replace("}", ">")
            others.append(f"| `{place}` | {about} |\n")
    text = _with_rows(text, "| path | content |", others)
    return _with_rows(text, "| table | one row is |", tables)


def _with_rows(text: str, header: str, rows: list[str]) -> str:
    """A text in which the table of two columns with this header has these rows."""
    start = f"{header}\n| --- | --- |\n"
    return re.sub(re.escape(start) + r"(?:\|.*\n)*", lambda _: start + "".join(rows), text)


WRITTEN = {"dvc.yaml": pipeline, "slurm/config.yaml": profile, "docs/artifacts.md": page}


def main(root: Path, *options: str) -> None:
    """Write the files; with --check, only end with a message if one is out of date."""
    rules = read_rules(root)
    for name, text_for in WRITTEN.items():
        file = root / name
        text = text_for(file, rules)
        if "--check" not in options:
            file.write_text(text, encoding="utf-8")
        elif text != file.read_text(encoding="utf-8"):
            sys.exit(f"{file}: is not what the rules say: `make dvc.yaml` writes it")


if __name__ == "__main__":
    main(Path(), *sys.argv[1:])
