"""Look up known vulnerabilities of the installed packages.

A vulnerability that is found fails the audit; packages that cannot be looked up are named. Options
are those of pip-audit: `make audit AUDIT="--ignore-vuln <id>"` accepts one.
"""

import json
import subprocess
import sys
import tempfile
from typing import Any


def look_up(*options: str) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing when its service cannot be reached."""
    command = ["pip-audit", "--format", "json", "--progress-spinner", "off", *options]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    return json.loads(said)["dependencies"] if said.startswith("{") else []


def main(options: list[str]) -> str | None:
    with tempfile.NamedTemporaryFile(
        "w", suffix=".txt"
    ) as requirements:  # of which every index knows
        print("pillow==9.0.0", file=requirements, flush=True)
        if not any(
            package.get("vulns")
            for package in look_up("--no-deps", "--disable-pip", "--requirement", requirements.name)
        ):
            print("not audited: the service that knows of vulnerabilities cannot be reached")
            return None
    found = look_up("--local", "--skip-editable", *options)
    skipped = [package["name"] for package in found if "skip_reason" in package]
    faults = [
        f"{package['name']} {package['version']}: {fault['id']}, fixed in {fault['fix_versions']}"
        for package in found
        for fault in package.get("vulns", [])
    ]
    print(
        f"{len(found) - len(skipped)} packages audited; not known to the service: "
        f"{', '.join(skipped) or 'none'}"
    )
    return "\n".join(faults) if found else "pip-audit gave no answer"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or None)
