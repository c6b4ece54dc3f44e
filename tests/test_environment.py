"""The project's own files agree with each other."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import FILES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)


EXTRAS = {
    name: list(map(Requirement, named)) for name, named in PROJECT["optional-dependencies"].items()
}
REQUIREMENTS = [
    requirement
    for named in (map(Requirement, PROJECT["dependencies"]), *EXTRAS.values())
    for requirement in named
    if requirement.name != "singflow"
]
MAKEFILE, GUIDE = ((ROOT / name).read_text() for name in ("Makefile", "docs/installation.md"))


def reached(extra):
    """The extra, and those that it names in turn."""
    own = [requirement for requirement in EXTRAS[extra] if requirement.name == "singflow"]
    return {extra}.union(*(reached(inner) for requirement in own for inner in requirement.extras))


def test_conda_installs_the_project_with_its_extras_and_constraints():
    conda = [entry for entry in ENVIRONMENT if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict)]
    assert f"python{PROJECT['requires-python']},<3.14" in conda and "pip" in conda
    assert pip == ["-c constraints.txt", "-e .[all,test,check]"]
    rules = yaml.safe_load((ROOT / "rules/environment.yaml").read_text())["dependencies"]
    assert rules == [entry for entry in ENVIRONMENT if str(entry).startswith(("python", "pip"))]
    installs = (ROOT / "rules/environment.post-deploy.sh").read_text()
    extras = re.search(r"--constraint constraints\.txt --editable '\.\[(.*)\]'$", installs)[1]
    assert set(extras.split(",")) <= EXTRAS.keys()


def test_the_environments_of_the_makefile_hold_what_their_targets_need():
    assert reached("all") == EXTRAS.keys() - {"test", "check", "docs", "notebook", "rivals"}
    listed = " ".join(re.findall(r"^\| (`.*?) \|", GUIDE, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", listed)) == EXTRAS.keys() - {"test", "check"}
    made = dict(re.findall(r"^\.venv/(\w+): EXTRAS = (.*)", MAKEFILE, flags=re.MULTILINE))
    alone = {name: name for name in ("app", "docs")}
    assert made == alone | {"workflow": "cluster", "test": "all,test,check"}


def test_every_requirement_is_pinned_within_its_range_except_torch_and_torchvision():
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for requirement in REQUIREMENTS:
        name = canonicalize_name(requirement.name)
        if name in ("torch", "torchvision"):
            assert name not in pins and requirement.specifier
            assert "==" not in str(requirement.specifier)
        else:
            assert pins[name] in requirement.specifier


def test_no_file_names_a_registry_host_or_a_folder_of_a_machine():
    named = re.compile(rb"pypi\.org|pythonhosted|/home/\w|/root/|/work/")
    own = [name for name in FILES if (ROOT / name).is_file()]
    files = {name for name in own if named.search((ROOT / name).read_bytes())}
    assert files <= {"tests/test_environment.py"}
