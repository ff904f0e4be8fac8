"""Files that come with the code: trained models, PerSim's behaviour policies, tuned gains of controllers.

In an installed copy they lie in this package (pyproject.toml says which), in a checkout where git has them.
"""

from importlib.resources import files
from pathlib import Path

EXAMPLES = "checkpoints/examples"


def shipped(name: str) -> Path:
    """Where a file or folder lies that is called `name` in a checkout, e.g. "checkpoints/behaviour"."""
    installed = Path(str(files(__name__))) / name
    return installed if installed.exists() else Path(__file__).parents[2] / name


def here_or_shipped(path: Path) -> Path:
    """`path`, or the shipped model of that name where there is nothing: checkpoints/examples/mdp_n10."""
    if path.exists() or not path.is_relative_to(EXAMPLES):
        return path
    return shipped(str(path))
