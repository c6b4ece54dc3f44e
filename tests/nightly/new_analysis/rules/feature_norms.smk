step(
    "measure_feature_norms",
    reads="manifest features",
    writes="feature_norms",
    flags="feature_norms",
    threads=THREADS,
)
step(
    "plot_feature_norms",
    reads="feature_norms tables/models.csv",
    writes="tables/feature_norms.csv",
    figures="feature_norms",
    flags="models",
)
