from pathlib import Path

from singflow.commands.options import PARAMS, Remote
from singflow.errors import InputError, listed


def publish(remote: Remote = None) -> None:
    """Record a finished study with DVC, push it to a remote, and tag the commit study/<name>."""
    from singflow.artifacts.catalog import IN_GIT, TIERS
    from singflow.config.reading import read_yaml
    from singflow.engines import records
    from singflow.sharing import published
    from singflow.study import own_files, settle
    from singflow.system import ask

    study, entries = settle(read_yaml(PARAMS), str(PARAMS))
    results, tag = Path("results", study.study), f"study/{study.study}"
    published.check_committed()
    published.check_given(own_files(study, entries))
    published.check_kept(study.study)
    published.check_verifies(remote)
    if "Nothing to be done" not in ask("snakemake", "--dry-run", seconds=3600).out:
        raise InputError("the run is not finished: `singflow run` does the rest")
    records.check_made_here(results)
    if found := published.strangers(study, results):
        raise InputError(f"{listed(found)}: params.yaml knows no such files any more: remove them")
    records.fill(results, TIERS)
    published.dvc("commit", "--force", "--quiet", *TIERS)
    before = ask("git", "show", f"{tag}:{published.LOCK}")
    if before.ok and before.out != published.LOCK.read_text(encoding="utf-8"):
        raise InputError(
            f"tag {tag} has other results of this name: give the study another name, or replace "
            f"it: `git tag -d {tag}`"
        )
    published.forget_index()
    published.dvc("push", *TIERS, *(["--remote", remote] if remote else []))
    if not before.ok:
        published.git("add", "--force", str(published.LOCK), *(f"{results}/{n}" for n in IN_GIT))
        if published.git("diff", "--cached", "--name-only", "-z"):
            published.git("commit", "--quiet", "--message", f"Study {study.study}")
        published.git("tag", "--annotate", "--message", f"Study {study.study}", tag)
    print(f"study {study.study} is published; for others: git push --follow-tags")
