"""Time from the start of Python until a step has read its flags, beside that of `import pandas`.

The modules of figures load Matplotlib first, and have a mark of their own. Every repeat runs all
scripts once. Ends with exit status 1 when the minimum of a script is above its mark; other
programs on the machine add nothing to the minimum.
"""

import sys

import common
import pandas as pd
from common import ROOT, Mark, size
from pydantic import Field

from singflow import cli
from singflow.engines.code import step_files

PROGRAMS = {
    step: [f"scripts/{step}.py"]
    if path.parent.name == "scripts"
    else ["-m", f"singflow.figures.{step}"]
    for step, path in step_files(ROOT).items()
    if "cli.run_step(" in path.read_text(encoding="utf-8")
}
BASELINES = {"python -c pass": ["-c", "pass"], "import pandas": ["-c", "import pandas"]}
SCRIPT_S, FIGURE_S = 0.5, 1.2  # seconds that a script, and a figure, may take


class Flags(common.Flags):
    scripts: list[str] = Field(list(PROGRAMS), min_length=1, description="scripts that are started")
    repeats: int = size(5, 1, "times that every script is started")


def main(flags: Flags) -> None:
    commands = BASELINES | {script: [*PROGRAMS[script], "--help"] for script in flags.scripts}
    rounds = [
        {
            name: common.measure([sys.executable, *words], ROOT).seconds
            for name, words in commands.items()
        }
        for _ in range(flags.repeats)
    ]
    runs = pd.DataFrame(rounds)
    table = pd.DataFrame({"minimum s": runs.min(), "median s": runs.median()})
    table["of pandas"] = table["median s"] / table["median s"]["import pandas"]
    common.show(table.rename_axis("program").reset_index())
    marks = {script: FIGURE_S if "-m" in PROGRAMS[script] else SCRIPT_S for script in flags.scripts}
    common.hold(
        (Mark(script, table.at[script, "minimum s"], "<=", mark) for script, mark in marks.items()),
        flags.ease,
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
