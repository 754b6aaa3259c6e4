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
