"""The project's own files agree with each other."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.project import FILES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(each) for each in [*PROJECT["dependencies"], *(each for extra in extras for each in extra)]]


def test_the_conda_environment_installs_the_project_with_its_extras_and_constraints():
    conda = [each for each in ENVIRONMENT if isinstance(each, str)]
    (pip,) = [each["pip"] for each in ENVIRONMENT if isinstance(each, dict)]
    assert f"python{PROJECT['requires-python']},<3.14" in conda and "pip" in conda
    assert pip == ["-c constraints.txt", f"-e .[{','.join(PROJECT['optional-dependencies'])}]"]


def test_every_requirement_is_pinned_within_its_range_except_torch_and_torchvision():
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name in ("torch", "torchvision"):
            assert name not in pins and requirement.specifier and "==" not in str(requirement.specifier)
        else:
            assert pins[name] in requirement.specifier


def test_the_supported_python_is_the_makefiles():
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")
    assert "sys.version_info < (3, 11)" in (ROOT / "Makefile").read_text()


def test_no_file_names_a_registry_host_or_a_folder_of_a_machine():
    for name in FILES:
        content = (ROOT / name).read_bytes()
        assert not re.search(rb"pypi\.org|pythonhosted|/home/\w|/root/|/work/", content) or name == "tests/test_environment.py", name
