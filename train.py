"""Train a model: attributes first, then the image.

    python train.py preset=quickstart run=runs/demo       simulated X-rays, minutes on a CPU
    python train.py preset=real_cxr data.root=FOLDER       a folder of images with a CSV
    torchrun --nproc_per_node=8 train.py preset=...        several GPUs

Run the same command again after a kill: it goes on from the last checkpoint.
"""

import sys

from causalcxr.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
