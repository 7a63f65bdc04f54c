"""How many images are searched side by side."""

import pytest

from hiresattn.inference.batching import _images_in_memory


@pytest.mark.parametrize(("available", "images"), [(16_000_000, 61), (524_288, 2), (1_000, 1)])
def test_memory_that_only_caches_files_counts_as_free(tmp_path, monkeypatch, available, images):
    known = tmp_path / "meminfo"
    known.write_text(f"MemTotal: 24000000 kB\nMemFree: 1000 kB\nMemAvailable: {available} kB\n")
    monkeypatch.setattr("hiresattn.inference.batching._MEMINFO", known)
    assert _images_in_memory() == images


def test_where_free_memory_is_not_known_the_system_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("hiresattn.inference.batching._MEMINFO", tmp_path / "none")
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_AVPHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 4096}[name])
    assert _images_in_memory() == 16
