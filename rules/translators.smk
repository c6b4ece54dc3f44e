step(
    "fit_projector",
    reads="manifest head features",
    writes="projector projector_report",
    flags="projector",
    threads=THREADS,
)
step(
    "fit_translator",
    reads="manifest features embeddings",
    writes="translator translator_report",
    flags="translator",
    reference=reference,
    threads=THREADS,
)
step(
    "train_translator",
    reads="manifest features embeddings",
    writes="network network_report",
    flags="training translator.reference extraction.device seed",
    reference=reference,
    threads=THREADS,
)
