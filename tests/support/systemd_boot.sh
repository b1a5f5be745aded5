# Boot systemd as the first process of namespaces of its own, without the units of this machine, and run a script there.
# Arguments: the folder of the units, a folder for the script `try.sh` and its output, and the command `threepipe`.
# The caller is in a cgroup of its own, and kills the namespaces when the output has ended.
set -e
units=$1 folder=$2 command=$3
mount --make-rprivate /
for place in /run /var/lib /usr/local/sbin /lib/systemd/system /lib/systemd/system-generators; do
    mount -t tmpfs tmpfs $place
done
mkdir /run/lock /run/etc /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work overlay /etc
mount -t tmpfs tmpfs /etc/systemd/system
mount -t proc proc /proc
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for target in sysinit basic shutdown umount network-online nss-lookup default; do
    printf '[Unit]\nDefaultDependencies=no\n' > /lib/systemd/system/$target.target
done
cp "$units"/*.service /lib/systemd/system/
printf '#!/bin/sh\nexec %s "$@"\n' "$command" > /usr/local/sbin/threepipe
chmod 755 /usr/local/sbin/threepipe
mkdir -p /etc/threepipe /etc/wireguard
cat > /lib/systemd/system/try.service << END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh $folder/try.sh
StandardOutput=append:$folder/output
StandardError=inherit
END
mkdir /lib/systemd/system/default.target.wants
ln -s ../try.service /lib/systemd/system/default.target.wants/
ip link set lo up
container=other exec /lib/systemd/systemd --system --log-target=null
