# The agent and the seal: what belongs to one VM waits in mvm.target until the host has spoken.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  systemctl = "${config.systemd.package}/bin/systemctl";
  hook = text: {
    mode = "0755";
    source = pkgs.writeScript "mvm-hook" "#!${pkgs.runtimeShell}\n${text}\n";
  };
in
{
  options.mvm.agent = lib.mkOption {
    type = lib.types.package;
    description = "The package that holds mvm-guest.";
  };

  config = {
    systemd.services.mvm-guest = {
      description = "mvm's guest agent";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        ExecStart = "${config.mvm.agent}/bin/mvm-guest";
        Restart = "always";
      };
    };
    # Services with `wantedBy = [ "mvm.target" ]` start once the guest is personalised.
    systemd.targets.mvm.description = "What runs in a personalised guest";
    environment.etc."mvm/start" = hook "exec ${systemctl} start --no-block mvm.target";
    environment.etc."mvm/stop" = hook "exec ${systemctl} stop mvm.target";
  };
}
