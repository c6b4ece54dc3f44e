"""Loads what a step computes with, and ends: `python benchmarks/tower.py <step> <its entry>`."""

import sys
from pathlib import Path

from singflow.config.registry import read_model, read_space

step, entry = sys.argv[1], Path(sys.argv[2])
if step.startswith("extract_"):
    from singflow.towers.classifiers import load_classifier

    load_classifier(read_model(entry))
else:
    from singflow.towers.spaces import load_image_tower, load_text_tower

    load = load_image_tower if step == "embed_images" else load_text_tower
    load(read_space(entry))
