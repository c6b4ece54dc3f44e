"""The models and weights that timm and torchvision have, and the names near an unknown one."""

import difflib

from singflow.errors import InputError


def timm_ids(identifier: str) -> list[str]:
    """Ids of all weights that timm has for the model of an id; InputError if it has no model."""
    import timm

    name = identifier.partition(".")[0]
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    return [str(known) for known in timm.list_pretrained(f"{name}.*")]


def torchvision_ids(identifier: str) -> list[str]:
    """The same of torchvision."""
    from torchvision.models import get_model_weights, list_models

    name = identifier.partition(".")[0]
    if name not in list_models():
        raise _unknown("torchvision", name, list_models())
    tags = [weights.name for weights in get_model_weights(name)]
    return [f"{name}.{tag}" for tag in tags]


def _unknown(library: str, name: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    words = f"; near: {', '.join(near)}" if near else ""
    return InputError(f"{library} has no model {name!r}{words}")


IDS = {"timm": timm_ids, "torchvision": torchvision_ids}
