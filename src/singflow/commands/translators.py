import json
from dataclasses import asdict

from singflow.commands.options import AsJson, print_table


def translators(as_json: AsJson = False) -> None:
    """List the translators of the packaged reference, imported ones, and those under results/."""
    from singflow.cli import limit_threads
    from singflow.errors import printable
    from singflow.sharing.translators import available_translators

    limit_threads(1)
    found = list(available_translators())
    if as_json:
        print(json.dumps([asdict(translator) for translator in found], indent=2))
        return
    rows = [("from", "space", "model", "R2", "rows", "weights", "file")]
    rows += [
        (
            printable(translator.origin),
            printable(translator.space),
            printable(translator.model),
            "-" if translator.r2 is None else f"{translator.r2:.3f}",
            "-" if translator.rows is None else str(translator.rows),
            (translator.weights_sha256 or "-")[:12],
            (translator.sha256 or "-")[:16],
        )
        for translator in found
    ]
    print_table(rows)
