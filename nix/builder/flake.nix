{
  description = "The VM that builds flakes in a place of its own: mvm build --builder vm";

  inputs.mvm.url = "flake:mvm-offline";

  outputs =
    { mvm, ... }:
    let
      # Nix and git with the libraries they need; mvm lays them out beside this file.
      programs = builtins.listToAttrs (
        map (name: {
          name = "/bin/${name}";
          value = {
            source = ./tools/bin + "/${name}";
            mode = "755";
          };
        }) (builtins.attrNames (builtins.readDir ./tools/bin))
      );
    in
    {
      packages = builtins.listToAttrs (
        map
          (system: {
            name = system;
            value.default = mvm.lib.mkGuest {
              name = "builder";
              minMemMib = 512;
              files = programs // {
                "/usr/lib/mvm-builder" = ./tools/lib;
                "/etc/ssl/certs/ca-certificates.crt" = ./tools/certificates;
              };
              inherit system;
            };
          })
          [
            "x86_64-linux"
            "aarch64-linux"
          ]
      );
    };
}
