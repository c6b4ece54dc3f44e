"""What git keeps of the rules and the catalog: stages, groups of jobs on Slurm, tables in the docs.

`python -m singflow.engines.stages` writes dvc.yaml, slurm/config.yaml and docs/artifacts.md.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from singflow.artifacts.catalog import CATALOG
from singflow.engines.code import FILE
from singflow.engines.flags import QUOTED, named

if TYPE_CHECKING:
    from snakemake.rules import Rule

FIRST = "check_study"  # the stage before all others, which only DVC needs
ITEMS = {
    "space": "spaces",
    "model": "models",
    "kind": "comparison.kinds",
    "shard": "extraction.shard_ids",
}  # wildcard -> key of its values
PLACEHOLDER = re.compile(r"\$\(([\w.]+)\)")  # Snakemake would take braces for wildcards
BUNDLE = re.compile(r"\$\(item\.flags ([^)]*)\)")
ITEM = re.compile(r"\$\(item\.\w+\)")
IN_GIT = "/metrics.json"  # metrics that git keeps, not DVC's cache


def placeholders(section: type[Any], key: str = "") -> Any:
    """A study in which every value is a placeholder for its key, as in `$(data.root)`.

    The lists in ITEMS hold one placeholder, as in `$(item.model)`.
    """
    items = {values: f"$(item.{name})" for name, values in ITEMS.items()} | {
        "comparison.models": "$(item.model)"
    }
    study: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        full = f"{key}.{name}" if key else name
        inner = getattr(field.annotation, "model_fields", None)
        study[name] = (
            placeholders(field.annotation, full)
            if inner
            else [items[full]]
            if full in items
            else f"$({full})"
        )
    return study


def flags_placeholder(keys: list[str]) -> str:
    """What stands for flags_of(): placeholders, for lists as in `$(item.flags name=key)`."""
    from singflow.study import Params

    kinds: dict[str, list[str]] = {"section": [], "list": [], "single": []}
    for name, key in named(keys).items():
        annotation: Any = Params
        for part in key.split("."):
            annotation = annotation.model_fields[part].annotation
        if hasattr(annotation, "model_fields"):
            kinds["section"].append(f"$({key})")
        elif any(get_origin(kind) is list for kind in (annotation, *get_args(annotation))):
            kinds["list"].append(f"{name}={key}")
        else:
            text = f'"$({key})"' if key in QUOTED else f"$({key})"
            kinds["single"].append(f"--{name} {text}")
    lists = [f"$(item.flags {' '.join(kinds['list'])})"] if kinds["list"] else []
    return " ".join([*kinds["section"], *lists, *kinds["single"]])


def read_rules(root: Path) -> list[Rule]:
    """The rules of the steps of a checkout, with placeholders for the values of the study."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

    from singflow.study import Params

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(
                config=placeholders(Params), replace_workflow_config=True
            ),
            snakefile=root / "Snakefile",
            workdir=root,
        )._workflow
        return [rule for rule in workflow.rules if rule.shellcmd]


def stages_of(rules: list[Rule]) -> dict[str, Any]:
    """The stages by name, as dvc.yaml holds them, in the order of the rules."""
    steps = {rule.name: _stage(rule) for rule in rules}
    first = {
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
    # These inputs are lists of files that depend on the study. DVC has no such lists, so its stages
    # depend on a digest of the files.
    own = {"local", "generator"} & set(inputs.keys())
    bundles = {
        text: dict(pair.split("=") for pair in text.split()) for text in BUNDLE.findall(command)
    }
    (bundle,) = bundles.values() or [{}]
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
        "params": [
            *(key for key in keys if key.partition(".")[0] != "item"),
            {
                str(FILE): [
                    rule.name,
                    *(name for name in ("reference", "archives") if hasattr(params, name)),
                    *(["own_files"] if own else []),
                ]
            },
        ],
    }
    outs = [_dollars(str(output)) for output in outputs]
    body["outs"] = [out for out in outs if not _is_metrics(out)]
    if metrics := [
        {out: {"cache": False}} if out.endswith(IN_GIT) else out for out in outs if _is_metrics(out)
    ]:
        body["metrics"] = metrics
    if names:
        return {"matrix": shape | ({of_bundle: [values]} if bundle else {})} | body
    return {"foreach": {"study": values}, "do": body} if bundle else body


def _key(key: str) -> str:
    return f"${{{key}}}"


def _dollars(text: str) -> str:
    """A text with DVC's `${key}` in place of `$(key)`."""
    return PLACEHOLDER.sub(r"${\1}", text)


def _place(path: str, names: list[str]) -> str:
    """A path of a stage, or the folder above the items that the stage does not iterate over."""
    for item in ITEM.finditer(path):
        if item[0][7:-1] not in names:
            return path[: item.start()].rpartition("/")[0]
    return path


def _is_metrics(path: str) -> bool:
    return path.endswith((IN_GIT, "/tables/translators.json"))


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
    text = io.StringIO()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    content = yaml.load(file)
    content["stages"] = stages
    figures = [
        out
        for stage in stages.values()
        for out in stage.get("do", stage)["outs"]
        if str(out).endswith(".png")
    ]
    content["plots"] = [plot for plot in content["plots"] if not isinstance(plot, str)] + figures
    yaml.dump(content, text)
    return text.getvalue()


def profile(file: Path, rules: list[Rule]) -> str:
    """The text for slurm/config.yaml: groups of jobs from the catalog, the rest unchanged."""
    from snakemake.io import strip_wildcard_constraints

    groups = {artifact.path: artifact.group for artifact in CATALOG.values()}
    lines = ["groups:\n"]
    for rule in rules:
        group = groups[strip_wildcard_constraints(rule.output[0]).split("/", 2)[2]]
        lines += [f"  {rule.name}: {group}\n"] if group not in ("local", "") else []
    text = file.read_text(encoding="utf-8")
    return re.sub(r"^groups:\n(?:  .*\n)*", "".join(lines), text, flags=re.MULTILINE)


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
