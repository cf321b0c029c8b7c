# The guest as mvm wants to find it. Links keep the parts alive in the store and copy nothing.
busybox=$tools/bin/busybox
$busybox mkdir "$out"
$busybox ln -s "$kernel/vmlinux" "$out/vmlinux"
$busybox ln -s "$initrd/initrd" "$out/initrd"
$busybox ln -s "$rootfs/rootfs.ext4" "$out/rootfs.ext4"
echo "$info" >"$out/mvm.json"
