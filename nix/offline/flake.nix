{
  description = "mvm guests without nixpkgs and without a network";

  # Directories that `mvm setup` lays out; mvm tells Nix where these names lie.
  inputs.host-tools = {
    url = "flake:mvm-host-tools";
    flake = false;
  };
  inputs.kernel = {
    url = "flake:mvm-kernel";
    flake = false;
  };

  outputs =
    {
      host-tools,
      kernel,
      ...
    }:
    let
      mkGuest = import ./guest.nix { inherit host-tools kernel; };
      # aarch64-linux evaluates; it was never run.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      kinds = [
        "minimal"
        "dev"
      ];
      attrs = keys: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) keys);

      # `packages` of a flake of guests: `<role>-<profile>` and `<role>` for each role, `<profile>`
      # for the default role, and `default`. `profiles` is an mvm-profiles.toml: each of its entries
      # that has modules makes its attribute of them, on top of its role.
      mkGuests =
        {
          name,
          default,
          roles,
          profiles ? null,
        }:
        attrs systems (
          system:
          let
            guest =
              role: profile:
              mkGuest ({ inherit name system role profile; } // roles.${role});
            ofRole =
              role:
              builtins.listToAttrs (
                map (profile: {
                  name = "${role}-${profile}";
                  value = guest role profile;
                }) kinds
              )
              // {
                ${role} = guest role "minimal";
              };
            ofEntry =
              entry:
              let
                role = if entry.role == null then default else entry.role;
                profile = if builtins.elem entry.profile kinds then entry.profile else "minimal";
                options =
                  roles.${role} or (throw "mvm: mvm-profiles.toml has role `${role}`, and `${name}` has not");
              in
              mkGuest (
                { inherit name system role profile; }
                // import ./modules.nix options entry.files
                // { inherit (entry) modules; }
              );
          in
          builtins.foldl' (all: role: all // ofRole role) { } (builtins.attrNames roles)
          // attrs kinds (guest default)
          // { default = guest default "minimal"; }
          // builtins.mapAttrs (_: ofEntry) (import ./profiles.nix profiles)
        );
    in
    {
      lib = { inherit mkGuest mkGuests; };
      packages = mkGuests {
        name = "mvm";
        default = "worker";
        roles.worker = { };
      };
    };
}
