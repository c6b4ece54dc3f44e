step(
    "plot_scores",
    reads="scores tables/models.csv",
    figures="fig3",
    flags="models spaces",
)
step(
    "plot_labels",
    reads="scores evidence_groups tables/models.csv",
    figures="fig4",
    flags="models spaces plot_labels.labels",
)
step(
    "plot_concepts",
    reads="concepts names tables/spurious.csv tables/models.csv",
    figures="fig5",
    flags="models spaces plot_concepts",
)
step(
    "plot_translators",
    reads="translator_report network_report tables/models.csv",
    figures="fig7 fig8",
    flags="comparison.models spaces comparison.kinds",
    models="comparison",
)
step(
    "plot_null_validation",
    reads="null_validation tables/models.csv",
    writes="tables/null_validation.csv",
    figures="fig9",
    flags="models summary.confidence",
)
step(
    "plot_probes",
    reads="probes tables/models.csv",
    writes="tables/probes.csv",
    figures="fig12",
    flags="models spaces summary.confidence",
)
step(
    "plot_hidden_texts",
    reads="tables/hidden_texts.csv tables/models.csv",
    figures="hidden_texts",
    flags="models spaces",
)
