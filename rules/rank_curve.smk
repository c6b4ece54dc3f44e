step(
    "measure_rank_curve",
    reads="manifest head features translator texts names",
    writes="rank_curves",
    flags="rank_curve projector.energy",
    threads=THREADS,
)
step(
    "plot_rank_curves",
    reads="rank_curves tables/models.csv",
    writes="tables/rank_curves.csv",
    figures="rank_curves",
    flags="models spaces",
)
