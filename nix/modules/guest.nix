# NixOS as a microVM of mvm's: no bootloader, no initrd of its own, disks joined before it starts.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.mvm = {
    name = mkOption {
      type = types.str;
      description = "Name of the guest.";
    };
    profile = mkOption {
      type = types.str;
      default = "minimal";
      description = "Profile the guest is built in.";
    };
    role = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Role the guest is built for.";
    };
    ports = mkOption {
      type = types.listOf types.port;
      default = [ ];
      description = "TCP ports that listen once the guest is ready; 22 is always among them.";
    };
    minMemMib = mkOption {
      type = types.ints.positive;
      default = 256;
      description = "Least memory in MiB the guest boots with.";
    };
    modules = mkOption {
      type = types.listOf types.str;
      default = [
        "virtio_mmio"
        "virtio_blk"
        "virtio_net"
        "virtio_console"
        "vmw_vsock_virtio_transport"
        "virtiofs"
        "overlay"
        "ext4"
      ];
      description = "Kernel modules the initrd holds.";
    };
  };

  config = {
    boot.initrd.enable = false;
    boot.loader.grub.enable = false;
    # mvm's initrd has joined and mounted it; NixOS only wants to know of it.
    fileSystems."/" = {
      device = "root";
      fsType = "overlay";
    };
    networking = {
      hostName = lib.mkDefault "mvm";
      # The agent sets the address, the routes and the name servers.
      useDHCP = false;
      dhcpcd.enable = false;
      resolvconf.enable = false;
      firewall.enable = lib.mkDefault false;
    };
    documentation.enable = lib.mkDefault false;
    nix.enable = lib.mkDefault false;
    # The console is a log, not a place to log in.
    systemd.services."serial-getty@ttyS0".enable = false;
    environment.etc."mvm/role".text = "${if config.mvm.role == null then "" else config.mvm.role}\n";
    users.motd = "mvm guest ${config.mvm.name}, profile ${config.mvm.profile}\n";
    system.stateVersion = lib.mkDefault lib.trivial.release;
  };
}
