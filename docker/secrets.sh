#!/bin/sh
# Makes the secrets that compose.yaml reads, unless they exist: docker/secrets.sh [FOLDER]
#
# The folder is closed to others; the files are not, because a container reads them as its own user.
set -eu

folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
for name in postgres_password worker_secret; do
    file="$folder/$name"
    [ -s "$file" ] && continue
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$file"
    chmod 644 "$file"
    echo "made $file"
done
