step(
    "measure_evidence",
    reads="manifest head classes features embeddings projector translator_report texts names",
    writes="evidence planted_leaks own_words evidence_images evidence_texts evidence_groups",
    flags="evidence translator.lambdas translator.folds translator.reference"
    " summary.confidence seed",
    files={"table": value("data.table"), "class_list": value("data.classes")},
    reference=reference,
    threads=THREADS,
)
step(
    "measure_scores",
    reads="manifest head features projector translator texts names evidence_images",
    writes="scores",
    threads=THREADS,
)
step(
    "measure_zero_shot",
    reads="manifest features embeddings projector translator texts names",
    writes="zero_shot",
    threads=THREADS,
)
step(
    "validate_null_space",
    reads="manifest head features projector",
    writes="null_validation",
    flags="seed",
    threads=THREADS,
)
step(
    "scan_concepts",
    reads="manifest features projector translator texts names",
    writes="concepts",
    threads=THREADS,
)
step(
    "steer_concepts",
    reads="manifest head features projector translator texts names",
    writes="steering",
    flags="steering",
    threads=THREADS,
)
step(
    "probe_principal",
    reads="manifest features embeddings projector translator translator_report",
    writes="probes",
    flags="probe evidence.groups translator.folds translator.reference summary.confidence",
    files={"table": value("data.table"), "class_list": value("data.classes")},
    reference=reference,
    threads=THREADS,
)
