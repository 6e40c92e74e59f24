"""The header's hashes change when what they name changes, and only then."""

from __future__ import annotations

from pathlib import Path

from robots import hashes


def test_a_hash_of_files_knows_names_contents_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one")
    (tmp_path / "b.py").write_text("two")
    files = [tmp_path / "b.py", tmp_path / "a.py"]
    first = hashes.of_files(files, tmp_path)
    assert hashes.of_files(reversed(files), tmp_path) == first
    (tmp_path / "a.py").write_text("onetwo")
    (tmp_path / "b.py").write_text("")
    moved = hashes.of_files(files, tmp_path)
    (tmp_path / "a.py").write_text("one")
    (tmp_path / "b.py").write_text("two")
    assert hashes.of_files(files, tmp_path) == first != moved
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    assert hashes.of_files(tmp_path.glob("*.py"), tmp_path) != first


def test_the_software_has_a_name_of_its_own() -> None:
    assert len(hashes.software()) == 16
    assert hashes.software() == hashes.of_files(
        [hashes.ROOT / "premotor.py"]
        + [p for room in hashes.ROOMS for p in (hashes.ROOT / room).rglob("*") if p.suffix in (".py", ".yaml")],
        hashes.ROOT,
    )
