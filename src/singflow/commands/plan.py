import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from singflow.commands.options import PARAMS, Params, print_table

TITLES = ("step", "jobs", "of", "on", "asked GB")


def plan(params: Params = PARAMS) -> None:
    """Print what a study will take before it runs: jobs, memory and disk."""
    from singflow.config.sections import outside
    from singflow.data.imported import with_sizes
    from singflow.planning.plan import list_jobs
    from singflow.planning.prospects import leaks
    from singflow.planning.sizes import disk_bytes, expected_images, images_here, reference_size
    from singflow.study import read_layers, settle
    from singflow.system import existing, in_bytes

    content = read_layers(params)
    study, entries = settle(content, str(params))
    models, spaces = entries["model"], entries["space"]
    if study.data.source == "features":
        models = with_sizes(outside(study.data.root), models)
    folder = Path("results", study.study)
    images = expected_images(content, folder)
    waiting, every = list_jobs(params), list_jobs(params, "--forceall")

    assumed = "" if images_here(content, folder) else " (assumed: none are here yet)"
    print(f"Study {study.study}: {images} images{assumed}, {len(models)} models, ", end="")
    print(f"{len(spaces)} spaces")
    if study.translator.folds or study.translator.reference:
        print("What the test of meaning would find, if features vary as made-up ones do ", end="")
        print("(docs/planning.md):")
        for said, names in leaks(images + reference_size(content)[0], study, models).items():
            print(f"{', '.join(names)}: {said}")
    written = in_bytes(disk_bytes(content, images, models, spaces))
    free = in_bytes(shutil.disk_usage(existing(folder)).free)
    print(f"{len(waiting)} of {len(every)} jobs to run, {len(every) - len(waiting)} done")
    if waiting:
        asked = max(job.asked_mb for job in waiting) / 1e3
        print(f"{asked:.1f} GB of memory asked for the largest job")
    print(f"{written} on the disk once all is done, {free} free")
    print()
    table: list[Sequence[str]] = [TITLES]
    for step, count in Counter(job.step for job in every).items():
        left = [job for job in waiting if job.step == step]
        on = "GPU" if any(job.gpu for job in left) else "CPU"
        memory = f"{max(job.asked_mb for job in left) / 1e3:.1f}" if left else "done"
        table.append((step, str(len(left)), str(count), on if left else "", memory))
    print_table(table)
