"""`view`: says where the page is, and what can't be shown."""

import pytest

from hiresattn.inference.lines import json_line
from hiresattn.report.server import ViewerServer
from tests.cli.conftest import prediction


@pytest.fixture
def served(monkeypatch):
    """The images of the server that was started; it ends at once, as by Ctrl-C."""
    shown = []

    def serve(self, *_):
        shown.extend(self.images)
        raise KeyboardInterrupt

    monkeypatch.setattr(ViewerServer, "serve_forever", serve)
    monkeypatch.setattr("webbrowser.open", lambda _: pytest.fail("--no-open opened a browser"))
    return shown


def test_images_are_shown_with_their_results(run, served, image, tmp_path):
    records = tmp_path / "r.jsonl"
    records.write_text("".join(json_line(prediction(one).to_json()) + "\n" for one in (image, "other.svs")))
    result = run("view", image, "--results", records, "--no-open")
    assert result.exit_code == 0
    assert result.stdout.startswith("http://127.0.0.1:")
    assert "1 image; Ctrl-C ends it" in result.stderr
    assert [(one.source, len(one.answers)) for one in served] == [(str(image), 1)]
    served.clear()
    assert run("view", "--results", records, "--no-open").exit_code == 0
    assert [one.source for one in served] == [str(image), "other.svs"]


def test_what_cant_be_shown_is_said(run, served, tmp_path):
    (tmp_path / "a.svs").write_text("no slide")
    for words, status in (((), 2), ((tmp_path / "absent.svs",), 1), ((tmp_path / "a.svs",), 1)):
        result = run("view", *words, "--no-open")
        assert (result.exit_code, served) == (status, [])
    result = run("view", tmp_path / "none-*.svs", "--no-open")
    assert (result.exit_code, served) == (1, [])
    assert "Warning" in result.stderr
