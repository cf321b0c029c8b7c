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
      profiles = [
        "minimal"
        "dev"
      ];
      attrs = keys: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) keys);

      # `packages` of a flake of guests: `<role>-<profile>` and `<role>` for each role, `<profile>`
      # for the default role, and `default`.
      mkGuests =
        {
          name,
          default,
          roles,
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
                }) profiles
              )
              // {
                ${role} = guest role "minimal";
              };
          in
          builtins.foldl' (all: role: all // ofRole role) { } (builtins.attrNames roles)
          // attrs profiles (guest default)
          // { default = guest default "minimal"; }
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
