{
  description = "mvm guests on NixOS";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = lib.genAttrs systems;
      agent = system: import ./agent.nix { pkgs = nixpkgs.legacyPackages.${system}; };
      mkGuest = import ./guest.nix { inherit nixpkgs agent; };
      profiles = {
        minimal = [ ];
        dev = [ ./modules/dev.nix ];
      };
    in
    {
      lib = {
        # { name; profile ? "minimal"; role ? null; system ? "x86_64-linux"; modules ? [ ]; }
        # → a directory with vmlinux, initrd, rootfs.ext4 and mvm.json.
        mkGuest =
          {
            profile ? "minimal",
            modules ? [ ],
            ...
          }@args:
          mkGuest (
            args
            // {
              inherit profile;
              modules = (profiles.${profile} or (throw "mvm: no profile `${profile}`")) ++ modules;
            }
          );
      };

      nixosModules = {
        guest = ./modules/guest.nix;
        agent = ./modules/agent.nix;
        sshd = ./modules/sshd.nix;
        users = ./modules/users.nix;
        dev = ./modules/dev.nix;
      };

      packages = each (
        system:
        let
          guest = profile: self.lib.mkGuest { name = "mvm"; inherit system profile; };
        in
        {
          default = guest "minimal";
          minimal = guest "minimal";
          dev = guest "dev";
          mvm-guest = agent system;
        }
      );

      devShells = each (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          default = pkgs.mkShell {
            packages = with pkgs; [
              cargo
              clippy
              rustc
              rustfmt
              qemu
              firecracker
              e2fsprogs
              cpio
              openssh
              nftables
              iproute2
            ];
          };
        }
      );
    };
}
