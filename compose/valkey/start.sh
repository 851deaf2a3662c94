#!/bin/sh
# The password is a secret, so the file of users is written when the server starts.
set -eu
password=$(cat /run/secrets/redis_password)
rules=$(cat /etc/valkey/palaver.acl)
umask 077
printf 'user default off\nuser palaver on >%s %s\n' "$password" "$rules" > /tmp/users.acl
exec valkey-server /etc/valkey/valkey.conf --aclfile /tmp/users.acl
