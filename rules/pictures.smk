step(
    "render_pictures",
    reads="space_entry manifest head features projector translator texts names",
    writes="pictures",
    flags="pictures steering comparison"
    " data.source data.root data.max_pixels extraction.device seed",
    also={"networks": networks_of, "generator": generator_files},
    threads=THREADS,
)
step(
    "plot_pictures",
    reads="pictures tables/models.csv",
    figures="fig1 fig6 fig11 fig13",
    flags="models spaces",
)
step(
    "plot_angle_ladder",
    reads="manifest pictures tables/models.csv",
    writes="tables/angle_ladder.csv",
    figures="fig10",
    flags="models spaces",
)
step(
    "map_images",
    reads="model_entry manifest head features embeddings projector translator texts names",
    writes="maps",
    flags="pictures steering.prompts translator.folds translator.lambdas translator.reference"
    " summary.confidence data.source data.root data.max_pixels extraction.device seed",
    files={"classes": value("data.classes")},
    reference=reference,
    threads=THREADS,
)
step(
    "plot_maps",
    reads="manifest maps pictures tables/models.csv",
    writes="tables/maps.csv",
    figures="maps",
    flags="models spaces pictures summary.confidence",
)
step(
    "plot_cut_heads",
    reads="model_entry maps pictures tables/hidden_texts.csv tables/models.csv",
    figures="cut_heads",
    flags="models spaces pictures.closeup",
)
