#!/usr/bin/env bash
# Makes the two users and their databases; the image's entrypoint runs it as the database's superuser on an empty volume.
set -euo pipefail
secrets=${SECRETS:-/run/secrets}
for name in ledger mlflow; do
  [ -s "$secrets/${name}_password" ] || { echo "the secret ${name}_password must be a file that is not empty" >&2; exit 1; }
  # psql reads the password itself, so that it stands in no process list; :'...' quotes it.
  psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --dbname postgres <<SQL
\set password \`cat "$secrets/${name}_password"\`
SET log_statement = 'none';
CREATE ROLE $name LOGIN PASSWORD :'password';
CREATE DATABASE $name OWNER $name;
REVOKE ALL ON DATABASE $name FROM PUBLIC;
SQL
done
