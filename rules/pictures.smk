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
