# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a photo to a study's table
#
# What does a classifier not see in one photo, and is that more than what it does not see in other images? This needs the environment of
# `make demo` and no network; the last part also its results.

# %%
import os
from pathlib import Path

import singflow

os.chdir(next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "config/models.yaml").is_file()))

# %% [markdown]
# ## One photo
#
# One of the photos inside the package foolbox; put the path of your own here.

# %%
import importlib.util

photo = Path(importlib.util.find_spec("foolbox").submodule_search_locations[0]) / "data/imagenet_01_559.jpg"
analyzer = singflow.Analyzer.load("efficientnet_lite0")
result = analyzer.analyze(photo, ["a rug", "a dog"], name="photo")
result

# %%
result.figure()

# %% [markdown]
# Removing the null component changes no logit. It turns the meaning of the photo, but so do null components that carry nothing: the
# floor. Only what lies above it is evidence.

# %%
for name, score in (("null removal", result.removal), ("conditional removal", result.conditional)):
    print(f"{name}: {score.deg:.1f} degrees, floor {score.floor_deg:.1f}; {100 * score.floor_share:.0f} % of what is empty turns it as far")

# %% [markdown]
# ## Steering it
#
# The null space is also a way to other meanings: toward a text, while the logits stay.

# %%
for angle in (5.0, 10.0, 20.0, 40.0):
    steered = analyzer.steer(result, "a rug", angle)
    print(f"turned by {angle:4.1f}: {steered.angle_deg:.1f} degrees to 'a rug'; largest change of a logit {steered.logit_change:.0e}")

# %% [markdown]
# ## Many photos
#
# A photo says little. Over many, the mean score has a floor, a p-value and an interval: that is a study.

# %%
import pandas as pd

photos = sorted(photo.parent.glob("imagenet_0*.jpg"))
table = pd.DataFrame([analyzer.analyze(path).to_dict()["removal"] for path in photos])
table[["deg", "floor_deg"]].mean()

# %%
study = singflow.load_study("results/demo")
scores = study.table("scores/conse_minilm/efficientnet_lite0")
scores[["is_deg", "floor_is_deg", "conditional_is_deg", "floor_conditional_is_deg"]].mean()

# %%
study.table("tables/models").set_index("model").T
