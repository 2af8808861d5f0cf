#!/bin/sh
# Makes the users of docs/operations.md on a cluster that runs, and may be run
# again. The cookie comes from RABBITMQ_ERLANG_COOKIE, the passwords from
# ORCHESTRATOR_PASSWORD and WORKER_PASSWORD.
set -eu
rabbitmqctl() { command rabbitmqctl -q -n rabbit@rabbit-1 "$@"; }

user() { # name password
  rabbitmqctl add_user "$1" "$2" 2>/dev/null || rabbitmqctl change_password "$1" "$2"
}

user orchestrator "$ORCHESTRATOR_PASSWORD"
user worker "$WORKER_PASSWORD"
# An application logs in when it is given a password (rabbitmqctl change_password).
rabbitmqctl add_user application "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" 2>/dev/null || true
rabbitmqctl set_permissions -p / orchestrator '^ringmaster\.(?!worker\.)' '^(amq\.default|ringmaster\.(?!worker\.).*)$' '^ringmaster\.(?!worker\.)'
rabbitmqctl set_permissions -p / worker '^ringmaster\.(results|heartbeats|announcements|requests|deadletters|worker\..*)$' '^(amq\.default|ringmaster\.(results|heartbeats|worker\..*))$' '^ringmaster\.(announcements|worker\..*)$'
rabbitmqctl set_permissions -p / application '^ringmaster\.requests$' '^amq\.default$' '^$'
