#!/usr/bin/env bash
# Put a backup back: the database as it was then, and every artifact. Usage: deploy/restore.sh FOLDER
# The database of before is kept under the name mlflow_before_restore. COMPOSE names another compose command.
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
sql() { in_postgres psql --dbname=postgres --quiet --set ON_ERROR_STOP=1 "${@/#/--command=}" >/dev/null; }
fail() {
  sql 'DROP DATABASE IF EXISTS mlflow_restored WITH (FORCE)' || true
  echo "ERROR restore: $1; the server has the database that it had" >&2
  exit 1
}
"${compose[@]}" up -d postgres
for _ in $(seq 60); do
  in_postgres pg_isready --quiet --dbname=mlflow --host=127.0.0.1 && break
  sleep 1
done
# Beside the database in use, which goes on until this one is whole.
sql 'DROP DATABASE IF EXISTS mlflow_restored WITH (FORCE)' 'CREATE DATABASE mlflow_restored'
in_postgres pg_restore --dbname=mlflow_restored --exit-on-error <"$folder/database.dump" ||
  fail "PostgreSQL cannot read $folder/database.dump"
# Artifacts are only added: no run refers to them before the databases change places.
"${compose[@]}" run --rm -T mlflow restore <"$folder/artifacts.tar" || fail "the artifacts of $folder cannot be put back"
sql 'DROP DATABASE IF EXISTS mlflow_before_restore WITH (FORCE)'
"${compose[@]}" stop mlflow
in_postgres psql --dbname=postgres --quiet --set ON_ERROR_STOP=1 --single-transaction \
  --command='ALTER DATABASE mlflow RENAME TO mlflow_before_restore' \
  --command='ALTER DATABASE mlflow_restored RENAME TO mlflow' || {
  "${compose[@]}" up -d mlflow
  fail "somebody else is connected to the database"
}
"${compose[@]}" up -d mlflow
echo "$folder is back; the server is starting. The database of before is kept as mlflow_before_restore until the next restore"
