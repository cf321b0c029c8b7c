{
  description = "The VM that `mvm dev` opens";

  inputs.mvm.url = "flake:mvm-offline";

  outputs =
    { mvm, ... }:
    {
      packages = builtins.listToAttrs (
        map
          (system: {
            name = system;
            value.default = mvm.lib.mkGuest {
              name = "dev";
              profile = "dev";
              # mvm writes another one to have the root file system built from scratch.
              files."/etc/mvm-serial" = ./serial;
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
