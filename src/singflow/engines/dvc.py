"""What DVC's stages depend on besides files: digests in results/code.json."""

from contextlib import suppress
from pathlib import Path

from singflow.artifacts.files import sha256_of, write_json
from singflow.config.reading import read_yaml
from singflow.engines.code import digest_of, step_files
from singflow.errors import InputError
from singflow.study import images_state, own_files, settle
from singflow.translators.reference import fingerprint

FILE = Path("results/code.json")
FIRST = "check_study"  # the stage before all others; it writes FILE


def write_digests(path: Path = FILE, params: Path = Path("params.yaml")) -> None:
    """Write a digest of the code of every step, the reference, the images and the own files.

    null where the study has no such files, or cannot run here.
    """
    content = read_yaml(params) if params.is_file() else {}
    own = state = None
    with suppress(InputError):  # the study cannot run here
        files = own_files(*settle(content, str(params)))
        own = "".join(f"{file} {sha256_of(Path(file))}\n" for file in files)
        state = images_state(content, Path("results", content["study"]))
    reference = fingerprint(content.get("translator", {}).get("reference"))
    others = {"reference": reference, "archives": state, "own_files": own}
    write_json(path, {step: digest_of(program) for step, program in step_files().items()} | others)
