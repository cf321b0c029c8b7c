{
  inputs.mvm.url = "flake:mvm-offline";
  inputs.tools = {
    url = "flake:mvm-host-tools";
    flake = false;
  };

  # A guest as somebody else would make it: it takes its address from the kernel's command line,
  # brings its own host key and knows its user's key.
  outputs =
    { mvm, tools, ... }:
    let
      image = mvm.lib.mkGuest {
        name = "agentless";
        files."/etc/inittab" = "::respawn:/etc/own-init\n";
        files."/etc/own-init" = {
          mode = "755";
          text = ''
            #!/bin/sh
            address=$(sed 's/.* ip=\([0-9.]*\):.*/\1/' /proc/cmdline)
            ip link set eth0 up
            ip addr add "$address/24" dev eth0
            mkdir -p /etc/dropbear
            exec dropbear -F -R -s -p 22
          '';
        };
        files."/root/.ssh/authorized_keys" = {
          mode = "600";
          source = ./key.pub;
        };
      };
    in
    {
      packages.x86_64-linux.default = derivation {
        name = "agentless";
        system = "x86_64-linux";
        builder = "${tools}/build/bin/busybox";
        args = [
          "sh"
          (builtins.toFile "build" ''
            $busybox mkdir $out
            for file in vmlinux initrd rootfs.ext4; do $busybox ln -s $image/$file $out/$file; done
          '')
        ];
        busybox = "${tools}/build/bin/busybox";
        inherit image;
      };
    };
}
