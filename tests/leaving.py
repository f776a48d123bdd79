"""What killed runs leave behind, for tests."""

from pathlib import Path

from vocabkit.outputs import MARK, part_of


def left_by_a_run(out: Path, name: str, data: bytes = b"") -> Path:
    """Return OUT.part/NAME with this data, in an OUT.part as a run makes it."""
    folder = part_of(out)
    folder.mkdir(exist_ok=True)
    (folder / MARK).touch()
    (folder / name).write_bytes(data)
    return folder / name
