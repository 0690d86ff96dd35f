#!/bin/sh
# The first process of a small machine: lays out its files over the host's, then becomes systemd.
#
# It runs in new mount, PID, network, IPC and UTS namespaces, so that nothing done here is seen
# outside. STATE is a directory of the machine's own, CGROUP its cgroup, TTY its console. BASE and
# SITE are the Python and the site-packages that run sockmgr, CHECKOUT is this repository: all
# three are shown under /srv, because what is under somebody's home is not for User= to read. LAYER,
# if not empty, holds the unpacked packages of another systemd.
set -eu

echo 0 > "$CGROUP/cgroup.procs"
own=$STATE/own # seen by this machine only
mkdir "$own"
mount -t tmpfs -o mode=755 tmpfs "$own"
cd "$own"

# What is to be shown elsewhere, before anything is covered.
mkdir -p srv/base srv/site srv/checkout dev/shm dev/pts units/sysinit.target.wants \
    units/sockets.target.wants empty bin
mount --bind "$BASE" srv/base
mount --bind "$SITE" srv/site
mount --bind "$CHECKOUT" srv/checkout
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
touch dev/console # systemd insists on a terminal
mount --bind "$TTY" dev/console

# Before anything below /usr is covered.
if [ -n "$LAYER" ]; then
    mount -t overlay -o "lowerdir=$LAYER/usr:/usr" overlay /usr
fi

# The units of the host are not wanted, but for the targets and the journal.
system=/usr/lib/systemd/system
cp -P $system/*.target $system/systemd-journald*.service $system/systemd-journald*.socket units
ln -s ../systemd-journald.service units/sysinit.target.wants
# Without D-Bus systemd answers nobody but root.
cp -P $system/dbus.service $system/dbus.socket units
ln -s ../dbus.socket units/sockets.target.wants
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket units/sockets.target.wants
mount --bind units $system
for generators in system-generators system-environment-generators; do
    mount --bind empty "/usr/lib/systemd/$generators"
done

# Writable as on a real machine; what is written is gone with this one.
for part in etc var; do
    mkdir -p "overlay/$part/upper" "overlay/$part/work"
    mount -t overlay -o "lowerdir=/$part,upperdir=overlay/$part/upper,workdir=overlay/$part/work" \
        overlay "/$part"
done
mount -t tmpfs -o mode=755 tmpfs /etc/systemd
mkdir /etc/systemd/system
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\nReadKMsg=no\nAudit=no\n' \
    > /etc/systemd/journald.conf
tr -d - < /proc/sys/kernel/random/uuid > "$own/machine-id"
rm -f /etc/machine-id /etc/fstab
cp "$own/machine-id" /etc/machine-id

cat > bin/sockmgr <<'EOF'
#!/bin/sh
export LD_LIBRARY_PATH=/srv/base/lib PYTHONPATH=/srv/checkout:/srv/site PYTHONDONTWRITEBYTECODE=1
exec /srv/base/bin/python3 -c 'import sys; from sockmgr.cli import main
sys.argv[0] = "/usr/local/bin/sockmgr"; main()' "$@"
EOF
chmod 755 bin/sockmgr
mount --bind bin /usr/local/bin
mount --rbind srv /srv

mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/systemd/system
# As systemd-tmpfiles has it: the group may read the journal.
mkdir /run/log
install -d -m 2755 -g systemd-journal /run/log/journal "/run/log/journal/$(cat /etc/machine-id)"
mount --rbind dev /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts /dev/pts
mount -t sysfs -o ro sysfs /sys

# The cgroup namespace last: its root is the cgroup that this process is in.
cd /
exec unshare --cgroup sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    container=test NOTIFY_SOCKET="$STATE/notify" \
    /usr/lib/systemd/systemd --system --show-status=no --unit=multi-user.target'
