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
    published.check_given(study, own_files(study, entries))
    published.check_kept(study.study)
    published.check_verifies(remote)
    planned = ask("snakemake", "--dry-run", seconds=3600)
    if not planned.ok:  # Snakemake complains on standard output
        raise InputError(f"snakemake --dry-run: {planned.out.strip() or planned.message}")
    if "Nothing to be done" not in planned.out:
        raise InputError("the run is not finished: `singflow run` does the rest")
    records.check_made_here(results)
    if found := published.strangers(study, results):
        raise InputError(f"{listed(found)}: params.yaml knows no such files any more: remove them")
    records.fill(results, TIERS)
    known = published.LOCK.read_bytes() if published.LOCK.exists() else None
    published.dvc("commit", "--force", *TIERS)
    tagged = ask("git", "show", f"{tag}:{published.LOCK}")
    if tagged.ok and tagged.out != published.LOCK.read_text(encoding="utf-8"):
        if known is None:
            published.LOCK.unlink()
        else:
            published.LOCK.write_bytes(known)
        raise InputError(
            f"tag {tag}: keeps other results, code or parameters of this name: give the study "
            f"another name, or the tag: `git tag <name> {tag}^{{}} && git tag --delete {tag}`"
        )
    published.forget_index()
    published.remove_torn(remote)
    published.dvc("push", *(["--remote", remote] if remote else []))
    kept = [str(published.LOCK), *(f"{results}/{name}" for name in IN_GIT)]
    published.git("add", "--force", *kept)
    if published.git("diff", "--cached", "--name-only", "-z", "--", *kept):
        published.git("commit", "--quiet", "--message", f"Study {study.study}", "--", *kept)
    if not tagged.ok:
        published.git("tag", "--annotate", "--message", f"Study {study.study}", tag)
    print(f"study {study.study} is published; for others: git push --follow-tags")
