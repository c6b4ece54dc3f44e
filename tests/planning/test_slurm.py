from singflow.planning import slurm as cluster
from tests.refusals import refused

LOG = """Using profile slurm for setting default command line arguments.
SLURM run ID: {name}
rule extract_features:
    output: results/{study}/features/tiny/shard-00000.safetensors
"""


def test_runs_of_other_studies_are_told_apart_by_what_they_wrote(tmp_path):
    for name, study in {"aaa": "demo", "bbb": "sweep", "ccc": "demo_2", "ddd": "demo"}.items():
        (tmp_path / f"{name}.snakemake.log").write_text(LOG.format(name=name, study=study))
    (tmp_path / "4.snakemake.log").write_text("Building DAG of jobs...\n")
    assert cluster.foreign_runs(tmp_path, "demo") == {"bbb", "ccc"}
    assert cluster.foreign_runs(tmp_path, "sweep") == {"aaa", "ccc", "ddd"}
    assert cluster.foreign_runs(tmp_path / "absent", "demo") == set()


def test_a_command_that_is_missing_fails_or_hangs_is_named(monkeypatch):
    ask = cluster.ask_slurm
    assert ask("echo", "7|demo").splitlines() == ["7|demo"]
    refused("no-squeue: no such command: is this machine part of a Slurm cluster", ask, "no-squeue")
    refused(r"ls /absent: .*No such file", ask, "ls", "/absent")
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    refused(r"sleep gave no answer within 0\.2 s", ask, "sleep", "5")
