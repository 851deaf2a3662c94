#!/bin/sh
# The password is a secret, so the file of users is written when the server starts.
set -eu
here=$(dirname "$0")
users=${TMPDIR:-/tmp}/palaver-users.acl
# By its hash, so that it may contain any character and lies nowhere in plain.
hash=$(printf %s "$(cat "${SECRETS:-/run/secrets}/redis_password")" | sha256sum | cut -d " " -f 1)
umask 077
printf 'user default off\nuser palaver on #%s %s\n' "$hash" "$(cat "$here/palaver.acl")" > "$users"
if [ "$(id -u)" = 0 ] && command -v docker-entrypoint.sh >/dev/null; then
  chown valkey "$users"
  exec docker-entrypoint.sh valkey-server "$here/valkey.conf" --dir "${DATA:-/data}" --aclfile "$users" "$@" # it drops root's rights
fi
exec valkey-server "$here/valkey.conf" --dir "${DATA:-/data}" --aclfile "$users" "$@"
