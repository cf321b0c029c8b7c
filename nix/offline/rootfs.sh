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
mkdir root
root=$PWD/root
cd root
mkdir -p bin dev etc/mvm etc/service/sshd home/mvm lib mnt proc root run srv sys tmp usr/lib var/log
ln -s bin sbin
ln -s lib lib64
ln -s ../bin usr/bin
ln -s ../bin usr/sbin
ln -s ../run var/run
ln -s ../tmp var/tmp
chmod 700 root home/mvm
chmod 1777 tmp

# A copy for it alone, as it is setuid.
cp "$busybox" bin/busybox
cp "$busybox" bin/su
for part in $guest $extra; do
	cp -f "$part"/bin/* bin/
	set --
	for library in "$part"/lib/*; do
		# A directory is what a program looks for below its prefix, /usr.
		if [ -d "$library" ]; then
			cp -R "$library" usr/lib/
		elif [ ! -e "lib/${library##*/}" ]; then
			set -- "$@" "$library"
		fi
	done
	[ $# = 0 ] || cp "$@" lib/
	[ ! -d "$part/share" ] || cp -R "$part/share" usr/
done
# What comes out of the store is read-only even for its owner.
chmod -R u+w usr
[ ! -e bin/sftp-server ] || ln -s ../bin/sftp-server usr/lib/sftp-server

cd "$skeleton"
cp passwd group profile inittab shadow "$root/etc/"
cp rehearse start stop supervise "$root/etc/mvm/"
cp sshd "$root/etc/service/sshd/run"
cp -f sudo poweroff "$root/bin/"
cp -f poweroff "$root/bin/halt"
cd "$root"
chmod 644 etc/passwd etc/group etc/profile etc/inittab
chmod 640 etc/shadow
chmod 755 bin/* etc/mvm/* etc/service/sshd/run
: >etc/service/sshd/sealed
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
	[ -d "./${path%/*}" ] || mkdir -p "./${path%/*}"
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

echo '@nix {"action":"setPhase","phase":"rootfs"}' >&2
# Few processes, as each costs milliseconds where the CPU is emulated.
{
	find . -mindepth 1 -type d | sort | tr '\n' '\0' | xargs -0 stat -c '%a %n' |
		sed 's|^\([0-7]*\) \.\(.*\)|mkdir "\2"\nset_inode_field "\2" mode 04\1|; s|04\([0-7]\{3\}\)$|040\1|'
	find . -type f | sort | sed "s|^\.\(.*\)|write \"$root\1\" \"\1\"|"
	find . -type l | sort | while read -r path; do
		echo "symlink \"${path#.}\" \"$(readlink "$path")\""
	done
	for applet in $(busybox --list); do
		case $applet in
		busybox | su | dpkg | dpkg-deb | rpm) continue ;;
		esac
		# Somebody else's program of that name is there in its place.
		[ -e "bin/$applet" ] || [ -L "bin/$applet" ] || echo "symlink \"/bin/$applet\" busybox"
	done
} >../script
cd ..
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
inodes=$(($(grep -c -v '^set_' script) + 64))
size=$((kib + kib / 16 + inodes / 2 + 1024))
mkdir "$out"
tool mke2fs -q -t ext4 -b 4096 -N $inodes -m 0 -L mvm-root -O ^has_journal,^resize_inode \
	-U 6d766d00-726f-4f74-8000-000000000001 \
	-E hash_seed=6d766d00-726f-4f74-8000-000000000002,root_owner=0:0,lazy_itable_init=0,nodiscard \
	"$out/rootfs.ext4" ${size}k
tool debugfs -w -f script "$out/rootfs.ext4" >log 2>errors
# debugfs ends well whatever its commands did: its first line is its name, any other is an error.
if sed 1d errors | grep . >&2; then
	exit 1
fi
