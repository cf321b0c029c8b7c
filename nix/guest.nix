# One NixOS guest in the form mvm boots: the same contract as the offline flake's.
{ nixpkgs, agent }:
{
  name,
  profile,
  role ? null,
  system ? "x86_64-linux",
  modules ? [ ],
  # The names of those that mvm-profiles.toml adds, for mvm to see that they count.
  named ? [ ],
}:
let
  nixos = nixpkgs.lib.nixosSystem {
    inherit system;
    modules = [
      ./modules/guest.nix
      ./modules/agent.nix
      ./modules/sshd.nix
      ./modules/users.nix
      { mvm = { inherit name profile role; agent = agent system; }; }
    ] ++ modules;
  };
  inherit (nixos) config;
  pkgs = nixpkgs.legacyPackages.${system};
  toplevel = config.system.build.toplevel;
  kernel = config.boot.kernelPackages.kernel;

  initrd = pkgs.runCommand "mvm-initrd" { nativeBuildInputs = [ pkgs.cpio ]; } ''
    mkdir -p root/{bin,sbin,dev,proc,sys,lower,upper,root,lib}
    cp ${pkgs.pkgsStatic.busybox}/bin/busybox root/bin/busybox
    ln -s ../bin/busybox root/sbin/modprobe
    install -m 755 ${../assets/guest/init} root/init
    cp -r ${
      pkgs.makeModulesClosure {
        rootModules = config.mvm.modules;
        inherit kernel;
        firmware = pkgs.emptyDirectory;
        allowMissing = true;
      }
    }/lib/modules root/lib/modules
    chmod -R u+w root
    find root -exec touch -h -d @1 {} +
    mkdir $out
    cd root && find . | sort | cpio --quiet --create --format=newc --reproducible --owner=0:0 >$out/initrd
  '';

  rootfs = pkgs.callPackage "${nixpkgs}/nixos/lib/make-ext4-fs.nix" {
    storePaths = [ toplevel ];
    volumeLabel = "mvm-root";
    populateImageCommands = ''
      mkdir -p files/{bin,sbin,dev,etc,proc,run,sys,tmp,var}
      ln -s ${toplevel}/init files/sbin/init
    '';
  };
  # Firecracker takes an ELF image on x86 and an Image on aarch64.
  image = if system == "x86_64-linux" then "${kernel.dev}/vmlinux" else "${kernel}/Image";
in
pkgs.runCommand "mvm-${name}"
  {
    info = builtins.toJSON {
      contract = 2;
      ports = [ 22 ] ++ builtins.filter (port: port != 22) config.mvm.ports;
      min_mem_mib = config.mvm.minMemMib;
      modules = named;
    };
    passthru = { inherit nixos; };
  }
  ''
    mkdir $out
    ln -s ${image} $out/vmlinux
    ln -s ${initrd}/initrd $out/initrd
    ln -s ${rootfs} $out/rootfs.ext4
    echo "$info" >$out/mvm.json
  ''
