"""Say whether a result tree is the same as another, or as the published one."""

import sys
import tempfile
from collections import Counter
from itertools import groupby
from pathlib import Path

from pydantic import Field

from singflow import cli
from singflow.config import check, read_yaml
from singflow.errors import InputError
from singflow.sharing import MOST_NAMES, TIERS, Tier, listed, tier_of, working_remote
from singflow.store import md5_of
from singflow.verification import EXPLAINS, Finding, Verdict, compare, hashes_of

PARAMS = Path("params.yaml")
MENDS = {
    Verdict.MISSING: "`make fetch`, or run the study; where only a tier was fetched, `--tier <tier>` looks at that alone",
    Verdict.EXTRA: "remove it if it is left from another study",
}


class Flags(cli.Command):
    """Say whether a result tree is the same as another, or as the published one."""

    results: Path | None = Field(None, description="tree to look at; not given: results/<study>")
    against: str | None = Field(None, description="another tree, or a DVC remote; not given: dvc.lock and DVC's local cache")
    lock: Path = Field(Path("dvc.lock"), description="hashes of the published study; not read where another tree is given")
    tier: Tier = Field("features", description="look only at what `make fetch` brings with this tier")


def main(flags: Flags) -> None:
    study = check(read_yaml(PARAMS), str(PARAMS)).study
    results = flags.results or Path("results", study)
    if flags.against and Path(flags.against).is_dir():
        there = Path(flags.against)
        findings = compare(results, hashes_of(there), lambda name, _: there / name)
    else:
        findings = compare_with_published(results, study, flags)
    looked_at = TIERS[: TIERS.index(flags.tier) + 1]
    kept = [each for each in findings if tier_of(each.name) in looked_at]
    print("\n".join(summary(kept)))
    sys.exit(not all(each.good for each in kept))


def compare_with_published(results: Path, study: str, flags: Flags) -> list[Finding]:
    """Verdicts against dvc.lock, with files out of DVC's local cache or a remote, and out of git; no lock is taken."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    prefix = f"results/{study}/"
    outs = [out for stage in read_yaml(flags.lock).get("stages", {}).values() for out in stage.get("outs", [])]
    known = {out["path"].removeprefix(prefix): out["md5"] for out in outs if out["path"].startswith(prefix)}
    if not known:
        raise InputError(f"{flags.lock}: knows nothing of study {study}: run `make publish`, or name another file with --lock")
    try:
        with Repo() as repo, tempfile.TemporaryDirectory() as folder:
            odb = repo.cloud.get_remote_odb(working_remote(repo.config, flags.against, write=False)) if flags.against else repo.cache.local
            copy, commit = Path(folder, "copy"), repo.scm.get_fs("HEAD")

            def original(name: str, md5: str) -> Path | None:
                for files, path in ((odb.fs, odb.oid_to_path(md5)), (commit, f"/{prefix}{name}")):
                    if files.exists(path):
                        files.get_file(path, str(copy))
                        if md5_of(copy) == md5:
                            return copy
                return None

            return compare(results, known, original)
    except DvcException as error:
        raise InputError(f"DVC: {error}") from None


def summary(findings: list[Finding]) -> list[str]:
    """A line for each folder, software of other versions, and the verdict with the first artifact of the pipeline that differs."""
    lines = []
    for top, group in groupby(findings, key=lambda each: each.name.split("/")[0]):
        members = list(group)
        lines.append(f"{top}: {_counts(members)}")
        near = [(each.worst.used, f"{each.name}: {each.worst}") for each in members if each.good and each.worst and each.worst.size]
        lines += [f"    nearest to its limit: {words}" for _, words in sorted(near)[-1:]]
    differences = [difference for each in findings for difference in each.differences]
    lines += sorted({str(each) for each in differences if each.where.startswith(EXPLAINS)})
    differing = [each for each in findings if each.verdict == Verdict.DIFFERS]
    for verdict, mend in MENDS.items():
        if names := [each.name for each in findings if each.verdict == verdict]:
            lines.append(f"{verdict}: {listed(names)}: {mend}")
    lines += [f"{'also' if i else 'the first that'} differs: {each}" for i, each in enumerate(differing)][:MOST_NAMES]
    answer = "the same" if all(each.good for each in findings) else "NOT the same"
    return [*lines, f"{answer}: {len(findings)} artifacts: {_counts(findings)}"]


def _counts(findings: list[Finding]) -> str:
    counts = Counter(each.verdict for each in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


if __name__ == "__main__":
    cli.run(main, Flags)
