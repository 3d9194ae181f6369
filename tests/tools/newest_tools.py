"""The tools of today, which know Panorama only from a model that they are given."""

import pathlib
import subprocess

HERE = pathlib.Path(__file__).parent


def newest(w, *command, fails=False, **changes):
    """A tool of the newest environment, at home in the walk's folder, where it keeps the model."""
    tools = subprocess.run([HERE / "environment", "requirements-newest.txt"], check=True, capture_output=True, text=True).stdout.strip()
    home = w.folder / "home"
    home.mkdir(exist_ok=True)
    return w.service.run(f"{tools}/bin/{command[0]}", *command[1:], fails=fails, HOME=str(home), PATH=f"{tools}/bin:/usr/bin:/bin", **changes)
