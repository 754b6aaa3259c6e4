"""VOC annotations for the tests to read: small ones, and broken ones."""

from pathlib import Path

OBJECT = """<object><name>{name}</name><truncated>{truncated}</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""
DOG = {"name": "dog", "truncated": 0, "difficult": 0, "xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}


def write(path: Path, *objects: str, width: object = 100, height: object = 80) -> Path:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    return path


def dog(**changes: object) -> str:
    return OBJECT.format(**DOG | changes)


def with_list(tree: Path, content: str | bytes, *annotated: str) -> Path:
    """Write the list `test`, and an annotation of 100 x 80 pixels with a dog for each id."""
    path = tree / "VOC2007/ImageSets/Main/test.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for image_id in annotated:
        write(tree / f"VOC2007/Annotations/{image_id}.xml", dog())
    return path
