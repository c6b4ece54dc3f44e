step(
    "probe_principal",
    reads="manifest features embeddings projector translator translator_report",
    writes="probes",
    flags="probe evidence.groups translator.folds translator.reference summary.confidence",
    files={"table": value("data.table"), "class_list": value("data.classes")},
    reference=reference,
    threads=THREADS,
)
step(
    "plot_probes",
    reads="probes tables/models.csv",
    writes="tables/probes.csv",
    figures="fig12",
    flags="models spaces summary.confidence",
)
