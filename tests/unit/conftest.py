"""Makes the helper modules of this folder (`fake_dialogues`) importable: importlib mode leaves sys.path alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
