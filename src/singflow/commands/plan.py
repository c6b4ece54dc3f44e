import shutil
from collections.abc import Sequence

from singflow.commands.options import PARAMS, Params, print_table

TITLES = ("step", "jobs", "of", "on", "asked GB", "measured time")


def plan(params: Params = PARAMS) -> None:
    """Print what a study will take before it runs: jobs, memory, disk, and measured time."""
    from singflow.config.sections import outside
    from singflow.data.imported import with_sizes
    from singflow.planning.plan import RESULTS, alike, list_jobs, rows_by_step
    from singflow.planning.prospects import leaks
    from singflow.planning.sizes import disk_bytes, expected_images, images_here, reference_size
    from singflow.study import read_layers, settle
    from singflow.system import existing, in_bytes, in_time

    content = read_layers(params)
    study, entries = settle(content, str(params))
    models, spaces = entries["model"], entries["space"]
    if study.data.source == "features":
        models = with_sizes(outside(study.data.root), models)
    folder = RESULTS / study.study
    images = expected_images(content, folder)
    waiting, every = list_jobs(params), list_jobs(params, "--forceall")
    rows = rows_by_step(waiting, every, alike(content, images))

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
    known = {row.step: row.mean * len(row.jobs) for row in rows if row.mean is not None}
    unmeasured = sum(job.step not in known for job in waiting)
    if count := len(waiting) - unmeasured:
        took = in_time(sum(known.values()))
        print(f"{took} of one job after the other, as measured before for {count} jobs")
    if unmeasured:
        print(f"the time of {unmeasured} jobs was never measured on as many images")
    print()
    table: list[Sequence[str]] = [TITLES]
    for row in rows:
        cells = ["", "", "done"]
        if row.jobs:
            asked = max(job.asked_mb for job in row.jobs) / 1e3
            time = in_time(known[row.step]) if row.step in known else "not measured"
            cells = ["GPU" if any(job.gpu for job in row.jobs) else "CPU", f"{asked:.1f}", time]
        table.append((row.step, str(len(row.jobs)), str(row.every), *cells))
    print_table(table)
