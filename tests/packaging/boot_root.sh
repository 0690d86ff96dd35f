#!/bin/sh
# The first process of a machine that has a whole Debian of its own: covers the directory ROOT, so
# that nothing is written there, makes it the root, and becomes its systemd.
#
# Runs as tests/systemd/boot.sh does, with the same STATE, CGROUP and TTY.
set -eu

echo 0 > "$CGROUP/cgroup.procs"
own=$STATE/own # seen by this machine only
mkdir "$own"
mount -t tmpfs -o mode=755 tmpfs "$own"
mkdir "$own/upper" "$own/work" "$own/root"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$own/upper,workdir=$own/work" overlay "$own/root"
cd "$own/root"

mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
touch dev/console # systemd insists on a terminal
mount --bind "$TTY" dev/console
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mkdir -p ".$STATE" .old
mount --bind "$STATE" ".$STATE"
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' > etc/systemd/journald.conf
ln -s /dev/null etc/systemd/system/tmp.mount # what it would cover is where STATE is
tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id

pivot_root . .old
umount -l /.old
cd /
exec unshare --cgroup sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    container=test NOTIFY_SOCKET="$STATE/notify" \
    /usr/lib/systemd/systemd --system --show-status=no --unit=multi-user.target'
