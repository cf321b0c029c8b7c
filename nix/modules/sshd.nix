# sshd with the VM's own host key, which the agent writes; keys only.
{ lib, ... }:
{
  services.openssh = {
    enable = true;
    hostKeys = [ ];
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
    extraConfig = "HostKey /run/mvm/ssh/ssh_host_ed25519_key";
  };
  systemd.services.sshd = {
    wantedBy = lib.mkForce [ "mvm.target" ];
    partOf = [ "mvm.target" ];
  };
}
