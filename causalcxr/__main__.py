"""`python -m causalcxr COMMAND ...`, the same as `causalcxr COMMAND ...`."""

import sys

from causalcxr.commands.main import main

sys.exit(main())
