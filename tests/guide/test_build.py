import subprocess
import sys

from tests.guide.pages import GUIDE


def test_the_guide_is_built_without_a_warning(tmp_path):
    """Links, cross-references, docstrings and page tree are checked by Sphinx."""
    command = ["-E", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *command, str(GUIDE), str(tmp_path / "html")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fields = (tmp_path / "html/reference/fields.html").read_text()
    assert all(name in fields for name in ("data.profile.kind", "generator.dim", "search.pruner.min_epochs"))
    commands = (tmp_path / "html/reference/commands.html").read_text()
    assert "gitdist generator preview" in commands and "--take-over" in commands
