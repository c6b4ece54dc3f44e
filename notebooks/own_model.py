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
# # Your model in a notebook
#
# Does your classifier ignore meaning? Which meaning does it ignore? The notebook goes from a
# model in memory to a verdict, to the texts that name what is hidden, and to the places in a
# photo. It needs `pip install 'singflow[demo]'`, and no network.

# %% [markdown]
# ## The model
#
# Put your own `torch.nn.Module` here, with its evaluation transform and the names of its classes.
# This one was trained on ImageNet, and kept the 398 classes of animals. So the answer is known:
# what tells all other things apart does not reach its logits.

# %%
import torch

import singflow

packaged = singflow.Classifier.load("efficientnet_lite0")
transform, class_names = packaged.tower.preprocess.whole, packaged.class_names[:398]
model = packaged.tower.model
model.classifier = torch.nn.Linear(1280, 398)
model.classifier.weight.data = torch.from_numpy(packaged.weight[:398])
model.classifier.bias.data = torch.from_numpy(packaged.bias[:398])

# %% [markdown]
# ## Features, and embeddings of the same photos
#
# Any data loader that does not shuffle will do. Here it goes over the 20 photos inside the
# package foolbox. `collect` finds the linear head by itself, and checks that it gives the model's
# logits. Embeddings may come from any model that places images and texts in one space, such as
# CLIP (`singflow.Space.load("clip_vit_l14")`). `conse_minilm` needs no network. It describes an
# image by the weighted mean of sentences about ImageNet's classes.

# %%
import importlib.util
from pathlib import Path

from PIL import Image

folder = Path(importlib.util.find_spec("foolbox").submodule_search_locations[0]) / "data"
paths = sorted(folder.glob("imagenet_*.jpg"))
photos = [Image.open(path).convert("RGB") for path in paths]
labels = [packaged.class_names[int(path.stem.rpartition("_")[2])] for path in paths]
rows = [(transform(photo), label) for photo, label in zip(photos, labels, strict=True)]
loader = torch.utils.data.DataLoader(rows, batch_size=4)
data = singflow.collect(model, loader)
data

# %%
space = singflow.Space.load("conse_minilm")
embeddings = space.embed_images(photos)
class_texts = space.embed_texts([f"an image of a {name}" for name in class_names])

# %% [markdown]
# ## The verdict
#
# D is the share of the embeddings' variance that the null component adds to what the logits tell.
# 20 photos are too few to say anything. The features of this backbone for 507 more photos are
# packaged. With your own model, give `measure` some hundred photos of your own, and no
# `reference`.

# %%
more = singflow.packaged_reference()
reference = more.rows("features/efficientnet_lite0"), more.rows("embeddings/conse_minilm")
found = singflow.measure(data.features, data.head, embeddings, class_texts, reference=reference)
found

# %% [markdown]
# (a) D, and D of known leaks that were added to the same data. (b) D by the number of null
# directions. (c) IS, the angle by which removal of the null component turns an image's
# translation, and its floor, the same angle where the null component tells nothing.

# %%
found.plot()

# %% [markdown]
# ## Which meaning is hidden
#
# D of each text, with p corrected for their number. The model knows animals alone, so the words
# are about other things.

# %%
names = more.report("prompts/conse_minilm")["labels"]
texts = found.texts(more.tensors("prompts/conse_minilm")["label_embeddings"], names)
texts.head(10)

# %% [markdown]
# ## Where in a photo
#
# A live classifier has maps and steering as a packaged one has. The evidence gives the translator,
# the verdict, and what chance does to the scores of a photo. A text has a map if its score is
# beyond chance.

# %%
classifier = singflow.Classifier.of(model, transform, class_names, name="animals")
analyzer = singflow.Analyzer.load(classifier, space, translator=found)
result = analyzer.analyze(paths[1], ["a folding chair", "a dog"], name="photo")
result

# %%
result.figure()

# %% [markdown]
# ## On to a cluster
#
# The folder is a source for a study, with `data.source: features` and the folder as `data.root`.
# There, `singflow run` compares models, and writes tables, figures and a page.

# %%
data.save(
    "checkpoints/features/animals",
    class_names=class_names,
    ids=[path.name for path in paths],
    space="conse_minilm",
    embeddings=embeddings,
)
