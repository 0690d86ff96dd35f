#!/bin/sh
# The first process of a container that no engine made: lays out its files, gives away its rights,
# and becomes the command that it is given.
#
# It runs in new mount, PID, network, IPC, UTS and cgroup namespaces. STATE is a directory that the
# test sees as well, at PLACE inside. The files are those of the image ROOTFS, or without one the
# host's, where BASE and SITE are the Python and the site-packages that run sockmgr, and CHECKOUT is
# this repository, all three below /srv. WRITABLE are the directories beside /dev/shm that can be
# written to, as an engine mounts them: NAME:MODE. RIGHTS are options of setpriv(1).
set -eu

ip link set lo up
own=$STATE/own
mkdir "$own"
if [ -n "$ROOTFS" ]; then
    mount --bind "$ROOTFS" "$own"
    cd "$own"
    mkdir -p old
else
    mount -t tmpfs -o mode=755 tmpfs "$own"
    cd "$own"
    mkdir -p usr srv/base srv/site srv/checkout dev proc sys tmp run etc old
    mount --bind /usr usr
    for name in bin sbin lib lib64 lib32; do
        if [ -L "/$name" ]; then
            cp -P "/$name" "$name"
        elif [ -d "/$name" ]; then
            mkdir "$name"
            mount --bind "/$name" "$name"
        fi
    done
    mount --bind "$BASE" srv/base
    mount --bind "$SITE" srv/site
    mount --bind "$CHECKOUT" srv/checkout
    # Nobody but root has a name, as in an image that some number was made the user of.
    echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
    echo 'root:x:0:' > etc/group
    export LD_LIBRARY_PATH=/srv/base/lib PYTHONPATH=/srv/checkout:/srv/site
    export PYTHONDONTWRITEBYTECODE=1
fi
mkdir -p ".$PLACE"
mount --bind "$STATE" ".$PLACE"

mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
for node in null zero full random urandom; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o ro,nosuid,nodev,noexec cgroup2 sys/fs/cgroup 2>/dev/null || true
for each in $WRITABLE; do
    mkdir -p ".${each%:*}"
    mount -t tmpfs -o "mode=${each#*:}" tmpfs ".${each%:*}"
done

pivot_root . old
umount -l /old
mount -o remount,bind,ro /
cd "$PLACE"
export PATH=/usr/local/bin:/usr/bin:/bin HOME=/ LANG=C.UTF-8
rights="--no-new-privs $RIGHTS"
unset STATE PLACE ROOTFS BASE SITE CHECKOUT WRITABLE RIGHTS
# shellcheck disable=SC2086 - options, each a word
exec setpriv $rights -- "$@"
