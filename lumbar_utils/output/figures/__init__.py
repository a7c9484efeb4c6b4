"""From tidy tables and images to figures of print width. Nothing is read here, and only `save` writes.

Tables hold the models' keys (`unet`), figures show their names. `note` says on what data a result was obtained.
"""

from lumbar_utils.output.figures.data import *  # noqa: F403
from lumbar_utils.output.figures.networks import *  # noqa: F403
from lumbar_utils.output.figures.scores import *  # noqa: F403
from lumbar_utils.output.figures.style import *  # noqa: F403
from lumbar_utils.output.figures.variation import *  # noqa: F403
