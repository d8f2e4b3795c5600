"""Measure a trained run: writes metrics.json and a self-contained report.html into its folder.

python evaluate.py run=runs/demo
"""

import sys

from causalcxr.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
