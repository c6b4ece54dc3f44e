"""`make demo` killed within a file and between two files, and restarted: nothing is lost."""

DEMO = ["make", "-o", ".venv/demo", "demo"]
FIGURE = "results/demo/figures/fig5"  # of a step that writes two files
KILLS = [("os.rename", ".png"), ("open", ".pdf")]


def test_a_killed_demo_goes_on_to_the_artifacts_of_an_undisturbed_one(snakemake_project, tmp_path):
    whole = snakemake_project.artifacts()
    project = snakemake_project.copy(tmp_path / "chaos")
    for event, ending in KILLS:
        for old in (".png", ".pdf"):
            (project.folder / f"{FIGURE}{old}").unlink(missing_ok=True)
        project.killed(*DEMO, program="plot_concepts", event=event, path=rf"/\.fig5\{ending}")
        made = {name: content for name, content in project.artifacts().items() if name in whole}
        assert made.items() <= whole.items()
        assert "cannot be locked" in project.refused(*DEMO)
        project.snakemake("--unlock")
    project.run(*DEMO)
    assert project.artifacts() == whole  # no half file is left
    assert "Nothing to be done" in project.snakemake("--dry-run")
