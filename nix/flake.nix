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
      kinds = {
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
              modules = (kinds.${profile} or (throw "mvm: no profile `${profile}`")) ++ modules;
            }
          );

        # { name; default; roles.<role> = [ modules ]; profiles ? null; } → `packages` of a flake of
        # guests, as the offline flake's mkGuests makes them.
        mkGuests =
          {
            name,
            default,
            roles,
            profiles ? null,
          }:
          each (
            system:
            let
              guest = role: profile: modules: named:
                self.lib.mkGuest {
                  inherit name system role profile named;
                  modules = roles.${role} ++ modules;
                };
              ofRole =
                role:
                lib.mapAttrs' (profile: _: lib.nameValuePair "${role}-${profile}" (guest role profile [ ] [ ])) kinds
                // {
                  ${role} = guest role "minimal" [ ] [ ];
                };
              ofEntry =
                entry:
                guest (if entry.role == null then default else entry.role) (
                  if kinds ? ${entry.profile} then entry.profile else "minimal"
                ) entry.files entry.modules;
            in
            builtins.foldl' (all: role: all // ofRole role) { } (builtins.attrNames roles)
            // builtins.mapAttrs (profile: _: guest default profile [ ] [ ]) kinds
            // { default = guest default "minimal" [ ] [ ]; }
            // builtins.mapAttrs (_: ofEntry) (import ./profiles.nix profiles)
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
