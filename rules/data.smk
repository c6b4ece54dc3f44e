step(
    "resolve_study",
    reads="manifest",
    writes="params",
    files={"params": ancient(local(PARAMS))},
    study=whole_study,
)
step(
    "resolve_model",
    writes="model_entry",
    flags="weights data.source data.root",
    files={"classes": value("data.classes")},
    also={"local": local_files("model")},
    entry=entry_of("model"),
    archives=archives,
)
step(
    "resolve_space",
    writes="space_entry",
    flags="weights",
    also={"local": local_files("space")},
    entry=entry_of("space"),
)
step(
    "build_manifest",
    writes="manifest rejected",
    flags="data translator.folds translator.reference seed",
    also={"table": value("data.table"), "classes": value("data.classes")},
    stops={"params": local(PARAMS)},
    archives=archives,
    threads=THREADS,
)
