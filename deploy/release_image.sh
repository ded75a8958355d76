#!/usr/bin/env bash
# Build, push and sign an image, with a bill of materials and provenance. Needs buildx and cosign.
# From the environment: NAME, FILE (the Dockerfile), TAG, REGISTRY.
set -euo pipefail
cd "$(dirname "$0")/.."
for variable in NAME FILE TAG REGISTRY; do
  value=${!variable:-}
  if [[ ! $value =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*$ ]]; then
    echo "ERROR release-image: $variable must be given, and may hold letters, digits and . _ / - alone" >&2
    exit 1
  fi
done
image="${REGISTRY,,}/$NAME" # a registry has no capitals
docker buildx build --file "$FILE" --tag "$image:$TAG" --sbom=true --provenance=mode=max --push --metadata-file .image.json .
digest=$(python3 -c "import json; print(json.load(open('.image.json'))['containerimage.digest'])")
cosign sign --yes "$image@$digest"
