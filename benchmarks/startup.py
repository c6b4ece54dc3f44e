"""Time from the start of Python until a step has read its flags, beside that of `import pandas`.

The modules of figures load Matplotlib first, and have a limit of their own. Every repeat runs all
scripts once. Ends with exit status 1 when the minimum of a script is above the limit; other
programs on the machine add nothing to the minimum.
"""

import sys

import pandas as pd
from memory import ROOT, seconds
from pydantic import Field

from singflow import cli
from singflow.engines.code import step_files
from singflow.errors import InputError

PROGRAMS = {
    step: [f"scripts/{step}.py"]
    if path.parent.name == "scripts"
    else ["-m", f"singflow.figures.{step}"]
    for step, path in step_files(ROOT).items()
    if "cli.run_step(" in path.read_text(encoding="utf-8")
}
BASELINES = {"python -c pass": ["-c", "pass"], "import pandas": ["-c", "import pandas"]}


class Flags(cli.Command):
    scripts: list[str] = Field(list(PROGRAMS), min_length=1, description="scripts that are started")
    repeats: int = Field(5, ge=1, description="times that every script is started")
    limit_s: float = Field(0.5, gt=0, description="seconds that a script may take")
    figure_limit_s: float = Field(1.2, gt=0, description="seconds that a figure may take")


def judge(times: pd.Series, limit_s: float) -> None:
    """Count the scripts (seconds by name) that start in time. Raises InputError if some do not."""
    slow = times[times > limit_s]
    print(f"{len(times) - len(slow)} of {len(times)} scripts start within {limit_s:g} s")
    if len(slow):
        raise InputError(f"slower than {limit_s:g} s: {', '.join(slow.index)}")


def main(flags: Flags) -> None:
    commands = BASELINES | {script: [*PROGRAMS[script], "--help"] for script in flags.scripts}
    rounds = [
        {name: seconds([sys.executable, *words], ROOT) for name, words in commands.items()}
        for _ in range(flags.repeats)
    ]
    runs = pd.DataFrame(rounds)
    table = pd.DataFrame({"minimum s": runs.min(), "median s": runs.median()})
    table["of pandas"] = table["median s"] / table["median s"]["import pandas"]
    print(table.to_string(float_format="%.2f"))
    figures = [script for script in flags.scripts if PROGRAMS[script][0] == "-m"]
    others = [script for script in flags.scripts if script not in figures]
    for names, limit_s in ((others, flags.limit_s), (figures, flags.figure_limit_s)):
        if names:
            judge(table.loc[names, "minimum s"], limit_s)


if __name__ == "__main__":
    cli.run_step(main, Flags)
