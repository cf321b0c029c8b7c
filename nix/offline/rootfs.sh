# Builds `rootfs.ext4`. The tree is staged, then written by debugfs in sorted order: so owners,
# modes and times are what the script says, whoever builds it, and the same bytes come out.
busybox=$tools/bin/busybox
$busybox mkdir bin
$busybox --install -s bin
export PATH=$PWD/bin LC_ALL=C
# Seconds since the epoch for everything in the file system.
export E2FSPROGS_FAKE_TIME=1
for loader in "$tools"/lib/ld-*; do :; done
tool() {
	name=$1
	shift
	"$loader" --library-path "$tools/lib" "$tools/bin/$name" "$@"
}

echo '@nix {"action":"setPhase","phase":"stage"}' >&2
umask 022
mkdir -p root && cd root
mkdir -p bin dev etc/mvm etc/service/sshd home/mvm lib mnt proc root run srv sys tmp usr/lib var/log
ln -s bin sbin
ln -s lib lib64
ln -s ../bin usr/bin
ln -s ../bin usr/sbin
ln -s ../run var/run
ln -s ../tmp var/tmp
chmod 700 root home/mvm
chmod 1777 tmp

cp "$busybox" bin/busybox
for applet in $(busybox --list); do
	case $applet in
	busybox | su | dpkg | dpkg-deb | rpm) ;;
	*) ln -s busybox "bin/$applet" ;;
	esac
done
# A copy of its own, for it alone is setuid.
cp "$busybox" bin/su
for part in $guest $extra; do
	for program in "$part"/bin/*; do
		rm -f "bin/${program##*/}"
		cp "$program" bin/
	done
	for library in "$part"/lib/*; do
		# A directory is what a program looks for below its prefix, /usr.
		if [ -d "$library" ]; then
			cp -R "$library" usr/lib/
		elif [ ! -e "lib/${library##*/}" ]; then
			cp "$library" lib/
		fi
	done
	[ ! -d "$part/share" ] || cp -R "$part/share" usr/
done
# What comes out of the store is read-only even for its owner.
chmod -R u+w usr
chmod 755 bin/*
[ ! -e bin/sftp-server ] || ln -s ../bin/sftp-server usr/lib/sftp-server

put() {
	cp "$skeleton/$2" "$3"
	chmod "$1" "$3"
}
for file in passwd group profile inittab; do
	put 644 $file etc/$file
done
put 640 shadow etc/shadow
for file in rehearse start stop supervise; do
	put 755 $file etc/mvm/$file
done
put 755 sshd etc/service/sshd/run
: >etc/service/sshd/sealed
put 755 sudo bin/sudo
for name in poweroff halt; do
	# Not through the link that is there.
	rm -f bin/$name
	put 755 poweroff bin/$name
done
echo "$motd" >etc/motd
# What differs from VM to VM is kept in memory: writing it costs a restored guest less there.
mkdir root/.ssh home/mvm/.ssh
chmod 700 root/.ssh home/mvm/.ssh
ln -s /run/mvm/authorized_keys root/.ssh/authorized_keys
ln -s /run/mvm/authorized_keys home/mvm/.ssh/authorized_keys
for file in hostname hosts machine-id resolv.conf; do
	ln -s ../run/mvm/etc/$file etc/$file
done
echo "$role" >etc/mvm/role
printf '/bin/sh\n' >etc/shells

while read -r mode path source; do
	mkdir -p "./${path%/*}"
	if [ -d "$source" ]; then
		mkdir -p "./$path"
		cp -R "$source/." "./$path/"
		chmod -R u+w "./$path"
	else
		# A link of the skeleton's gives way.
		rm -f "./$path"
		cp "$source" "./$path"
		chmod u+w "./$path"
	fi
	[ "$mode" = - ] || chmod "$mode" "./$path"
done <"$manifestPath"
cd ..

echo '@nix {"action":"setPhase","phase":"rootfs"}' >&2
find root -mindepth 1 | sort | while read -r path; do
	inside=${path#root}
	if [ -L "$path" ]; then
		echo "symlink \"$inside\" \"$(readlink "$path")\""
	elif [ -d "$path" ]; then
		echo "mkdir \"$inside\""
		echo "set_inode_field \"$inside\" mode 04$(stat -c %a "$path" | sed 's/^...$/0&/')"
	else
		echo "write \"$path\" \"$inside\""
	fi
done >script
# Owners other than root, and what a staged file cannot be without being root.
cat >>script <<'END'
set_inode_field /bin/su mode 0104750
set_inode_field /bin/su gid 10
set_inode_field /home/mvm uid 1000
set_inode_field /home/mvm gid 1000
set_inode_field /home/mvm/.ssh uid 1000
set_inode_field /home/mvm/.ssh gid 1000
END

# The root is read-only: room for what is there and no journal.
kib=$(du -sk root | cut -f1)
inodes=$(($(find root | wc -l) + 64))
size=$((kib + kib / 16 + inodes / 2 + 1024))
tool mke2fs -q -t ext4 -b 4096 -N $inodes -m 0 -L mvm-root -O ^has_journal,^resize_inode \
	-U 6d766d00-726f-4f74-8000-000000000001 \
	-E hash_seed=6d766d00-726f-4f74-8000-000000000002,root_owner=0:0,lazy_itable_init=0,nodiscard \
	rootfs.ext4 ${size}k
tool debugfs -w -f script rootfs.ext4 >log 2>errors
# debugfs ends well whatever its commands did: its first line is its name, any other is an error.
if sed 1d errors | grep . >&2; then
	exit 1
fi
mkdir "$out"
cp rootfs.ext4 "$out/rootfs.ext4"
