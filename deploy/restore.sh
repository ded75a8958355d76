#!/usr/bin/env bash
# Put a backup back: the database as it was then, and every artifact. Usage: deploy/restore.sh FOLDER
# What was recorded since that backup is gone from the database. COMPOSE names another compose command.
set -euo pipefail
folder=$(cd "${1:?which backup? e.g. deploy/restore.sh backups/20260101T120000Z}" && pwd)
cd "$(dirname "$0")/.."
read -ra compose <<<"${COMPOSE:-docker compose}"
compose+=(-f docker-compose.mlflow.yml)
# A program in the database's container; the password is in its environment, on no command line.
in_postgres() { "${compose[@]}" exec -T postgres sh -c 'PGPASSWORD="$POSTGRES_PASSWORD" exec "$0" --username=mlflow "$@"' "$@"; }
(cd "$folder" && sha256sum --check --quiet SHA256SUMS) || {
  echo "ERROR restore: $folder is damaged; nothing was changed" >&2
  exit 1
}
"${compose[@]}" stop mlflow
"${compose[@]}" up -d postgres
for _ in $(seq 60); do
  in_postgres pg_isready --quiet --dbname=mlflow --host=127.0.0.1 && break
  sleep 1
done
sql() { in_postgres psql --dbname=postgres --quiet --set ON_ERROR_STOP=1 --command "$1"; }
sql 'DROP DATABASE IF EXISTS mlflow WITH (FORCE)'
sql 'CREATE DATABASE mlflow'
in_postgres pg_restore --dbname=mlflow --exit-on-error <"$folder/database.dump"
"${compose[@]}" run --rm -T mlflow restore <"$folder/artifacts.tar"
"${compose[@]}" up -d mlflow
echo "$folder is back; the server is starting"
