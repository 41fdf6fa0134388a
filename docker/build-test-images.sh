#!/bin/sh
# Builds both images without a container engine or a registry of images, and unpacks their root file
# systems: docker/build-test-images.sh [FOLDER]. Needs root and Debian's buildah and debootstrap,
# which it installs where they are missing.
#
# A Debian made by debootstrap stands in for the official base image; all else is the Dockerfile's.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$top/build/images}
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
base=localhost/vlibrary-base:$suite
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
storage="--root $out/storage --runroot $out/run"

if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
    apt-get update
    apt-get install --yes --no-install-recommends buildah debootstrap
fi
mkdir -p "$out"

# Under its own name only once it is whole. A run that was cut off leaves the host's /proc mounted in it.
if [ ! -e "$out/base" ]; then
    umount "$out/base.part/proc" "$out/base.part/sys" 2>/dev/null || true
    rm -rf --one-file-system "$out/base.part"
    debootstrap --variant=minbase "$suite" "$out/base.part" ${MIRROR:+"$MIRROR"}
    mv "$out/base.part" "$out/base"
fi
# Made once: layers on top of another one would all be built again.
if ! buildah $storage inspect --type image "$base" >/dev/null 2>&1; then
    container=$(buildah $storage from scratch)
    buildah $storage add --quiet "$container" "$out/base" /
    buildah $storage commit --quiet --rm "$container" "$base"
fi

# What this machine's pip needs to reach its packages, the build's pip needs as well.
pip_conf=$out/pip.conf
volumes=$(python3 "$top/docker/host_pip.py" "$pip_conf")

for target in api worker; do
    buildah $storage bud --quiet --layers --format docker --pull-never \
        --build-arg BASE_IMAGE="$base" --secret "id=pip_conf,src=$pip_conf" $volumes \
        --target "$target" --tag "localhost/vlibrary-$target" "$top"
    container=$(buildah $storage from --pull-never "localhost/vlibrary-$target")
    mounted=$(buildah $storage mount "$container")
    rm -rf "$out/$target"
    cp --archive "$mounted" "$out/$target"
    buildah $storage inspect --type image "localhost/vlibrary-$target" > "$out/$target.json"
    buildah $storage rm "$container" >/dev/null
    echo "$out/$target"
done
