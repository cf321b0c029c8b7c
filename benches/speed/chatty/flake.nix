{
  description = "A derivation that says much and makes next to nothing";

  inputs.host-tools = {
    url = "flake:mvm-host-tools";
    flake = false;
  };

  outputs =
    { self, host-tools }:
    let
      chatty =
        system:
        derivation {
          name = "chatty";
          inherit system;
          builder = "${host-tools}/build/bin/busybox";
          args = [
            "sh"
            "-euc"
            ''
              busybox=${host-tools}/build/bin/busybox
              $busybox awk 'BEGIN {
                for (i = 1; i <= 1000000; i++)
                  print "  CC [M]  drivers/net/ethernet/vendor/module_" i ".o"
              }'
              $busybox mkdir $out
              $busybox printf '\177ELF' >$out/vmlinux
              echo "$salt" >$out/rootfs.ext4
            ''
          ];
          # Another one is another derivation, which has to be built.
          salt = builtins.readFile ./salt;
          preferLocalBuild = true;
          allowSubstitutes = false;
        };
    in
    {
      packages = builtins.listToAttrs (
        map (name: { inherit name; value.default = chatty name; }) [ "x86_64-linux" "aarch64-linux" ]
      );
    };
}
