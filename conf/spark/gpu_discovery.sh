#!/usr/bin/env bash
# Prints the addresses of this machine's NVIDIA GPUs in the form Spark asks of a discovery script:
#   {"name": "gpu", "addresses": ["0", "1"]}
set -euo pipefail
addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed -e 's/[^0-9]//g' -e '/^$/d' -e 's/.*/"&"/' | paste -sd, -)
echo "{\"name\": \"gpu\", \"addresses\": [${addresses}]}"
