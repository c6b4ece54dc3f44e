step(
    "summarize",
    reads="manifest model_entry space_entry projector_report translator_report scores zero_shot"
    " evidence evidence_texts evidence_groups",
    writes="tables/models.csv tables/labels.csv tables/hidden_texts.csv tables/hidden_groups.csv"
    " tables/summary.txt metrics.json",
    flags="models spaces summary extraction.top1_margin seed",
)
step(
    "compare_models",
    reads="evidence tables/models.csv",
    writes="tables/orders.csv tables/model_pairs.csv",
    flags="models spaces summary.confidence",
)
step(
    "list_concepts",
    reads="concepts names tables/models.csv",
    writes="tables/concepts.csv tables/spurious.csv",
    flags="models spaces concepts summary.confidence",
)
step(
    "tabulate_steering",
    reads="steering tables/models.csv",
    writes="tables/steering.csv",
    flags="models spaces",
)
step(
    "compare_translators",
    reads="translator translator_report network_report",
    writes="tables/translators.csv tables/translators.json",
    flags="comparison.models spaces comparison.kinds summary.min_r2 seed",
    models="comparison",
)
