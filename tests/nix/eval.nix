# What nix/flake.nix offers with the stand-in nixpkgs, down to one whole configuration.
let
  flake = import ../../nix/flake.nix;
  outputs = flake.outputs { inherit self; nixpkgs = import ./nixpkgs.nix; };
  self = outputs;
  gateway = outputs.lib.mkGuest {
    name = "gateway";
    role = "gateway";
    modules = [ { mvm.ports = [ 8080 22 ]; } ];
  };
  guests = outputs.lib.mkGuests {
    name = "web";
    default = "web";
    roles.web = [ { mvm.minMemMib = 300; } ];
    roles.job = [ ];
    profiles = ./profiles.toml;
  };
in
{
  guests = builtins.mapAttrs (_: guest: builtins.fromJSON guest.info) guests.x86_64-linux;
  offline = import ../../nix/offline/modules.nix {
    ports = [ 80 ];
    files."/a" = "a";
    minMemMib = 100;
  } [ ./offline-module.nix ];
  packages = builtins.mapAttrs (_: packages: builtins.mapAttrs (_: package: package.name) packages) outputs.packages;
  shells = builtins.mapAttrs (_: shells: shells.default.name) outputs.devShells;
  modules = builtins.attrNames outputs.nixosModules;
  info = builtins.fromJSON gateway.info;
  config = {
    inherit (gateway.nixos.config) mvm environment networking services users security;
    agent = gateway.nixos.config.systemd.services.mvm-guest;
    sshd = gateway.nixos.config.systemd.services.sshd;
  };
}
