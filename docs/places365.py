"""Download the validation photos of Places365, and list them with their scenes in a table.

python docs/places365.py
"""

import csv
from pathlib import Path

from torchvision.datasets import Places365

FOLDER = Path("places365")


def main() -> None:
    places = Places365(FOLDER, split="val", small=True, download=True)
    scenes = {
        row: name.split("/", 2)[2].replace("/", " ") for name, row in places.class_to_idx.items()
    }
    with (FOLDER / "val.csv").open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "label", "class_index"])
        # -1: a scene is no class of the head, even if a class has its name
        rows.writerows((Path(path).name, scenes[row], -1) for path, row in places.imgs)


if __name__ == "__main__":
    main()
