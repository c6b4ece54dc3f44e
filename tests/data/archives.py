"""Archives of images that tests make."""

import io
import json
import tarfile

import pyarrow as pa
from PIL import Image
from pyarrow import parquet


def picture(shade, kind="PNG"):
    """A small image file of its own content."""
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade % 256, shade // 256, 7)).save(file, kind)
    return file.getvalue()


def add(tar, name, content=b"", **facts):
    """Add a member of any kind to an open tar."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for fact, value in facts.items():
        setattr(info, fact, value)
    tar.addfile(info, io.BytesIO(content))


def pack(path, members):
    """Write a tar of names and contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            add(tar, name, content)


def write_rows(path, images, labels, names=None, group=2, **columns):
    """Write a Parquet file as the library `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        image if isinstance(image, dict | None) else {"bytes": image, "path": f"{number}.png"}
        for number, image in enumerate(images)
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, struct), "label": labels, **columns})
    numbers = {"_type": "Value", "dtype": "int64"}
    label = {"_type": "ClassLabel", "names": names} if names else numbers
    features = {"image": {"_type": "Image"}, "label": label}
    said = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": said})
    parquet.write_table(table, path, row_group_size=group)
