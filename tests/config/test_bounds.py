"""Every number that a user sets has two bounds, so that no value crashes or stalls a step."""

import importlib
import math
import pkgutil

import pytest

import singflow
from singflow import cli
from singflow.config.registry import MOST_CLASSES, ModelEntry
from singflow.config.sections import Section
from singflow.study import Params


def parameter_classes():
    """All sections of the package, but for the flags that engines write."""
    for module in pkgutil.walk_packages(singflow.__path__, "singflow."):
        importlib.import_module(module.name)
    found, waiting = set(), [Section]
    while waiting:
        waiting += (of_each := waiting.pop().__subclasses__())
        found |= {section for section in of_each if section.__module__.startswith("singflow.")}
    found = {section for section in found if not issubclass(section, cli.Command)}
    return sorted(found, key=lambda section: section.__qualname__)


def numbers(node, place):
    """Places and schemas of all numbers of a JSON schema."""
    if isinstance(node, dict):
        if node.get("type") in ("integer", "number"):
            yield place, node
        for key, value in node.items():
            if key not in ("default", "$defs", "const", "enum"):
                above = key in ("properties", "items", "anyOf")
                yield from numbers(value, place if above else f"{place}.{key}")
    for item in node if isinstance(node, list) else ():
        yield from numbers(item, place)


def test_every_number_of_every_parameter_class_has_finite_bounds_on_both_sides():
    classes = parameter_classes()
    found = []
    for section in classes:
        found += numbers(section.model_json_schema(), section.__qualname__)
    assert {Params, ModelEntry} < set(classes) and len(found) > 50, "the walk finds them"
    for place, schema in found:
        lower = schema.get("minimum", schema.get("exclusiveMinimum", math.nan))
        upper = schema.get("maximum", schema.get("exclusiveMaximum", math.nan))
        assert math.isfinite(lower) and math.isfinite(upper), place


@pytest.mark.parametrize("kept", [f"0-{MOST_CLASSES}", "9" * 5000, ",".join(["1"] * 999)])
def test_absurd_rows_of_a_head_are_refused_and_not_counted_out(kept):
    words = "must name rows of a head, which has 1000000 classes at most, in 1000 characters at"
    with pytest.raises(ValueError, match=words):
        ModelEntry(source="timm", id="a.b", keep_classes=kept)
