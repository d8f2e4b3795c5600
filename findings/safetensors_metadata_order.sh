#!/usr/bin/env bash
# safetensors writes the keys of `metadata` in an order of its own that changes from call to call. So a file with two
# keys or more, saved twice from the same tensors and the same metadata, has other bytes and another checksum, though
# the tensors are equal. With one key the bytes are always the same.
#
# What one expects: the tensors are laid out in a documented order, and saving the same content gives the same file.
# Seen with safetensors 0.8.0 and numpy 2.4.6 on Python 3.11: 20 processes, four keys: 14 different files;
# one key: 1 file. For a hash of the content, put all metadata into one key as JSON, or hash the tensors.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cat > "$folder/save.py" <<'PY'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

keys = int(sys.argv[1])
metadata = {f"key{i}": f"value {i}" for i in range(keys)}
print(hashlib.sha256(save({"weight": np.arange(4, dtype=np.float32)}, metadata)).hexdigest())
PY
for keys in 1 4; do
  for _ in $(seq 20); do "$folder/venv/bin/python" "$folder/save.py" "$keys"; done | sort -u | wc -l > "$folder/$keys"
done
one="$(tr -d ' ' < "$folder/1")" four="$(tr -d ' ' < "$folder/4")"
echo "different files of 20: one key $one, four keys $four"
[ "$one" -eq 1 ] && [ "$four" -gt 1 ]
