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
# What does a classifier ignore in one photo? Does its null space hold meaning at all? The notebook
# needs the environment of `make demo`, and no network. The last part also needs its results.

# %%
import importlib.util
from pathlib import Path

import singflow

# %% [markdown]
# ## One photo
#
# One of the photos inside the package foolbox; put the path of your own here.

# %%
photo = (
    Path(importlib.util.find_spec("foolbox").submodule_search_locations[0])
    / "data/imagenet_01_559.jpg"
)
analyzer = singflow.Analyzer.load("efficientnet_lite0")
result = analyzer.analyze(photo, ["a rug", "a dog"], name="photo")
result

# %%
result.figure()

# %% [markdown]
# Removing the null component changes no logit. It turns the translation of the photo, but a null
# component without information turns it almost as far. Whether the null space holds meaning is a
# question about the model. One photo cannot answer it.

# %%
print(
    f"IS {result.is_deg:.1f} degrees; a null component without information gives "
    f"{result.chance_is_deg:.1f}"
)
print(result.setting.said)

# %% [markdown]
# ## Steering it
#
# A photo can also be moved inside the null space, toward the meaning of a text. The logits stay.

# %%
for angle in (5.0, 10.0, 20.0, 40.0):
    steered = analyzer.steer(result, "a rug", angle)
    print(
        f"turned by {angle:4.1f}: {steered.angle_deg:.1f} degrees to 'a rug'; "
        f"largest change of a logit {steered.logit_change:.0e}"
    )

# %% [markdown]
# ## Many photos
#
# One photo says little. A study tests the model on many photos, and says which leak it would have
# found.

# %%
import pandas as pd

photos = sorted(photo.parent.glob("imagenet_0*.jpg"))
table = pd.DataFrame([analyzer.analyze(path).to_dict() for path in photos])
table[["is_deg", "chance_is_deg", "null_energy"]].mean()

# %%
study = singflow.load_study("../results/demo")
scores = study.table("scores/conse_minilm/efficientnet_lite0")
scores[["is_deg", "floor_is_deg"]].mean()

# %%
study.table("tables/models").set_index("model").T
