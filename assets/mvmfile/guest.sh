# Makes a distribution's root a guest of mvm's: its files come on standard input, and the arguments are
# services and the users that they run as, by turns.
while [ $# -gt 0 ]; do
	getent passwd "$2" >/dev/null || {
		echo "there is no user \`$2\`, as which the service \`$1\` shall run: add [users.$2] to the Mvmfile" >&2
		exit 1
	}
	shift 2
done
tar --extract --no-overwrite-dir --keep-directory-symlink --directory /

# busybox is init and what brings the guest down; the distribution's own programs stay as they are.
ours=/usr/lib/mvm/bin
ln -sf $ours/busybox /sbin/init
ln -sf $ours/busybox /sbin/reboot
[ -e /bin/busybox ] || ln -s $ours/busybox /bin/busybox
ln -sf busybox $ours/usleep

# What differs from VM to VM is kept in memory.
mkdir -p /root/.ssh /home/mvm/.ssh /srv /mnt
chmod 700 /root/.ssh /home/mvm/.ssh
chown mvm: /home/mvm/.ssh
for home in /root /home/mvm; do
	ln -sfn /run/mvm/authorized_keys $home/.ssh/authorized_keys
done
for file in hostname hosts machine-id resolv.conf; do
	ln -sfn ../run/mvm/etc/$file /etc/$file
done
