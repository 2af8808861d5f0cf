#!/bin/sh
# Makes the role and the database of docs/operations.md, when the server's data
# are made. The password comes from ROLE_PASSWORD.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$ROLE_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE ringmaster LOGIN PASSWORD :'password';
CREATE DATABASE ringmaster;
REVOKE ALL ON DATABASE ringmaster FROM PUBLIC;
GRANT CONNECT ON DATABASE ringmaster TO ringmaster;
\connect ringmaster
CREATE SCHEMA ringmaster AUTHORIZATION ringmaster;
SQL
