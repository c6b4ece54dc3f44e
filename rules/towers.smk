step(
    "extract_head",
    reads="model_entry",
    writes="head",
    flags="data.source data.root",
    archives=archives,
)
step(
    "extract_features",
    reads="model_entry manifest",
    writes="features",
    flags="extraction data.source data.root data.max_pixels seed",
    threads=THREADS,
)
step(
    "embed_images",
    reads="space_entry manifest",
    writes="embeddings",
    flags="extraction data.source data.root data.max_pixels seed",
    threads=THREADS,
)
step(
    "embed_prompts",
    reads="space_entry manifest",
    writes="texts names",
    flags="prompts targets=steering.prompts translator.reference extraction.device",
    files={
        "vocabulary": value("concepts.vocabulary"),
        "classes": value("data.classes"),
    },
    reference=reference,
    threads=THREADS,
)
step(
    "embed_classes",
    reads="space_entry head texts",
    writes="classes",
    flags="prompts extraction.device",
    files={"classes": value("data.classes")},
    threads=THREADS,
)
