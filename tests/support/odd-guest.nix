{
  inputs.kernel = {
    url = "flake:mvm-kernel";
    flake = false;
  };
  inputs.tools = {
    url = "flake:mvm-host-tools";
    flake = false;
  };

  outputs =
    { kernel, tools, ... }:
    let
      script = builtins.toFile "build" ''
        set -eu
        busybox=$tools/build/bin/busybox
        $busybox mkdir bin "$out"
        $busybox --install -s bin
        PATH=$PWD/bin
        mkdir -p root/bin root/dev
        cp "$busybox" root/bin/busybox
        cp "$init" root/init
        chmod 755 root/init
        for loader in "$tools"/build/lib/ld-*; do :; done
        (cd root && find . | "$loader" --library-path "$tools/build/lib" "$tools/build/bin/cpio" \
          --quiet --create --format=newc) >"$out/initrd"
        ln -s "$kernel/vmlinux" "$out/vmlinux"
        truncate -s 1M "$out/rootfs.ext4"
        echo '{"contract":1,"ports":[22]}' >"$out/mvm.json"
      '';
    in
    {
      packages.x86_64-linux.default = derivation {
        name = "odd-guest";
        system = "x86_64-linux";
        builder = "${tools}/build/bin/busybox";
        args = [
          "sh"
          script
        ];
        inherit kernel tools;
        init = ./init;
      };
    };
}
