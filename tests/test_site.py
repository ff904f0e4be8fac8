"""The site of docs/: what lies outside docs/ is on it, and no link of a page is broken."""

import importlib.util
import subprocess
import sys

import pytest

from tests.helpers.launch import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocstrings"), reason="pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site/index.html").read_text()
    assert 'src="results/rmdp/half_cheetah.gif"' in home and 'href="rl2.html"' in home
    assert 'href="../../index.html"' in (tmp_path / "site/results/comparison/particle.html").read_text()
    assert "Take the most likely action" in (tmp_path / "site/api/settings.html").read_text()
    for picture in ("results/rmdp/half_cheetah.gif", "results/comparison/particle.png"):
        assert (tmp_path / "site" / picture).read_bytes() == (ROOT / picture).read_bytes()
