SUMMARIZED = " ".join(name for name in CATALOG if CATALOG[name].summary)
WORDS = [  # of the columns that analyses add to the summary
    shipped(f"src/singflow/analyses/{analysis}.toml")
    for analysis, facts in ANALYSES.items()
    if any("summary" in artifact for artifact in facts["artifacts"].values())
]

step(
    "summarize",
    reads="manifest model_entry space_entry projector_report translator_report scores zero_shot"
    f" evidence evidence_texts evidence_groups {SUMMARIZED}",
    writes="tables/models.csv tables/labels.csv tables/label_correlations.csv"
    " tables/hidden_texts.csv tables/hidden_groups.csv tables/summary.txt metrics.json",
    flags="models spaces summary extraction.top1_margin seed",
    also={"words": WORDS},
)
step(
    "compare_models",
    reads="manifest controls controls_report evidence tables/models.csv",
    writes="tables/controls.csv tables/orders.csv tables/model_pairs.csv"
    " tables/order_agreement.csv tables/orders.txt",
    flags="models spaces summary seed",
    also={"paper": shipped("report/paper.yaml")},
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
