{
  description = "A shell and ssh";

  inputs.mvm.url = "flake:mvm-offline";

  outputs =
    { mvm, ... }:
    {
      packages = mvm.lib.mkGuests {
        name = "hello";
        default = "worker";
        roles.worker = { };
      };
    };
}
