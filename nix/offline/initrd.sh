# Builds `initrd`: busybox, init and the kernel's modules. Uncompressed: unpacking costs more
# time under software emulation than reading does.
busybox=$tools/bin/busybox
$busybox mkdir bin
$busybox --install -s bin
export PATH=$PWD/bin LC_ALL=C

echo '@nix {"action":"setPhase","phase":"initrd"}' >&2
mkdir -p root/bin root/dev root/proc root/sys root/lower root/upper root/root root/modules
cp "$busybox" root/bin/busybox
cp "$init" root/init
chmod 755 root/init root/bin/busybox
cp "$kernel"/modules/*.ko root/modules/
find root -exec touch -h -d @1 {} +

for loader in "$tools"/lib/ld-*; do :; done
cd root
find . | sort >../list
"$loader" --library-path "$tools/lib" "$tools/bin/cpio" --quiet --create --format=newc \
	--reproducible --owner=0:0 <../list >../initrd
cd ..
mkdir "$out"
cp initrd "$out/initrd"
