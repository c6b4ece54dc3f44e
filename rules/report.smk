PAGE = ("page.html", "run.html", "paper.yaml")
SHOWN = (
    artifacts("tables", ".csv")
    + artifacts("figures", ".png")
    + artifacts("figures", ".svg")
)

step(
    "write_report",
    reads="params manifest rejected model_entry space_entry head embeddings scores "
    f"{' '.join(SHOWN)}",
    writes="report.html",
    flags="models spaces report summary.confidence summary.min_r2 seed",
    files={"classes": value("data.classes")},
    also={
        "page": [
            *(shipped(f"report/{name}") for name in PAGE),
            shipped("src/singflow/report/columns.yaml"),
            local(ACCEPTED),
        ],
        "captions": sorted(
            {shipped(f"report/captions/{Path(name).stem}.rst") for name in SHOWN}
        ),
    },
)
