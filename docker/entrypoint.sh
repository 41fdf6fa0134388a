#!/bin/sh
# Runs `vlibrary` with secrets that were given as files: NAME_FILE=/run/secrets/x sets NAME to what
# the file holds, as the images of databases do. A secret in a file is in no inspection of the
# container.
set -eu

for name in DATABASE_URL PGPASSWORD VLIBRARY_DATABASE_URL VLIBRARY_WORKER_SECRET; do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    eval "given=\${${name}:-}"
    if [ -n "$given" ]; then
        echo "vlibrary: both $name and ${name}_FILE are set; give one of them" >&2
        exit 2
    fi
    if [ ! -r "$file" ]; then
        echo "vlibrary: cannot read ${name}_FILE: $file" >&2
        exit 2
    fi
    export "$name=$(cat "$file")"
    unset "${name}_FILE"
done

exec vlibrary "$@"
