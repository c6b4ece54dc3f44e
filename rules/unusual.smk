step(
    "measure_unusual",
    reads="manifest head features projector",
    writes="unusual unusual_report",
    flags="null_energy translator.folds translator.reference summary.confidence",
    reference=reference,
    threads=THREADS,
)
step(
    "tabulate_unusual",
    reads="unusual unusual_report tables/models.csv",
    writes="tables/unusual.csv",
    flags="models null_energy.usual_labels null_energy.unusual_labels summary.confidence",
)
