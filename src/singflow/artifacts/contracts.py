"""Tensors and columns that artifacts must have. Readers check them.

No step computes anything from this module, so that a new artifact makes no step stale.
"""

TENSORS = {  # name -> kind and number of dimensions
    **dict.fromkeys(["image_id", "view"], ("i", 1)),
    **dict.fromkeys(["bias", "singular_values", "feature_mean", "embedding_mean"], ("f", 1)),
    "fold_weight": ("f", 3),
    "fold_bias": ("f", 2),
    **dict.fromkeys(["features", "embeddings", "weight", "null_basis"], ("f", 2)),
    **dict.fromkeys(["label_embeddings", "concept_embeddings", "target_embeddings"], ("f", 2)),
    **dict.fromkeys(["class_embeddings", "other_embeddings"], ("f", 2)),
    **dict.fromkeys(["word_weights", "offset"], ("f", 1)),
}
COLUMNS = {  # table -> column -> kind
    table: {name: kind for kind, names in kinds.items() for name in names.split()}
    for table, kinds in {
        "manifest": {
            "i": "image_id class_index fold width height",
            "O": "path label prompt split sha256",
        },
        "archived": {"i": "offset bytes", "O": "archive"},
        "scores": {
            "i": "image_id class_index predicted_index fold",
            "O": "label",
            "f": "is_deg as_deg as_contrast_deg angle_original_deg angle_equivalent_deg"
            " null_energy logit_change control_is_deg control_as_deg matched_is_deg matched_as_deg"
            " conditional_is_deg conditional_as_deg floor_is_deg",
        },
        "controls": {
            "i": "image_id dimension",
            "O": "subspace",
            "f": "is_deg as_deg as_abs_deg matched_is_deg matched_as_deg",
        },
        "evidence": {"i": "draw", "f": "share unique_r2 unique_r2_low p"},
        "evidence_images": {
            "i": "image_id",
            "f": "floor_is_deg conditional_is_deg conditional_as_deg",
        },
        "head_extensions": {"i": "directions", "f": "unique_r2 unique_r2_low unique_r2_high"},
        "neighbours": {
            "i": "image_id original_id equivalent_id",
            "f": "original_deg equivalent_deg",
        },
        "null_validation": {
            "i": "image_id",
            "O": "perturbation",
            "f": "norm logit_change softmax_change",
            "b": "top1_changed",
        },
        "pictures": {"O": "figure picture"},
        "rank_curves": {"O": "point", "f": "kept", "i": "rank null_dim"},
        "zero_shot": {"i": "image_id", "O": "label translated equivalent embedding"},
        "steering": {
            "i": "image_id",
            "O": "label prompt",
            "b": "reachable",
            "f": "target_is_deg step is_deg as_target_deg as_label_deg logit_change",
        },
    }.items()
}
KINDS = {"i": "integers", "f": "floats", "b": "truth values", "O": "texts"}
