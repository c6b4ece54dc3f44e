    "feature_norms": Artifact(
        "feature_norms/{model}.parquet",
        "One row for each label: label, n, norm_mean (mean norm of the features).",
        columns=_of(O="label", i="n", f="norm_mean"),
        group="model",
    ),

    "feature_norms": "A label of a model: mean norm of its features.",

"feature_norms",
