#!/usr/bin/env bash
# Back the MLflow server up: database and artifacts, while it runs. Usage: deploy/backup.sh [FOLDER]
# COMPOSE names another compose command (docker-compose).
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra compose <<<"${COMPOSE:-docker compose}"
compose+=(-f docker-compose.mlflow.yml)
# A program in the database's container; the password is in its environment, on no command line.
in_postgres() { "${compose[@]}" exec -T postgres sh -c 'PGPASSWORD="$POSTGRES_PASSWORD" exec "$0" --username=mlflow "$@"' "$@"; }
folder=${1:-backups/$(date -u +%Y%m%dT%H%M%SZ)}
if [ -e "$folder" ]; then
  echo "ERROR backup: $folder is there already; name another" >&2
  exit 1
fi
umask 077
partial="$folder.partial"
rm -rf "$partial"
mkdir -p "$partial"
# The database first: an artifact that comes later is one too many, never one too few.
in_postgres pg_dump --format=custom mlflow >"$partial/database.dump"
"${compose[@]}" exec -T mlflow python /usr/local/lib/mlflow_server.py export >"$partial/artifacts.tar"
(cd "$partial" && sha256sum database.dump artifacts.tar >SHA256SUMS)
mv "$partial" "$folder"
echo "$folder holds database and artifacts ($(du -sh "$folder" | cut -f1)); keep it on another machine"
