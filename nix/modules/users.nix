# root by key, and `mvm`, who is everybody's default and needs no password for sudo.
{
  users.mutableUsers = false;
  # Only keys get in: the agent writes them into each home.
  users.allowNoPasswordLogin = true;
  users.groups.mvm.gid = 1000;
  users.users.mvm = {
    isNormalUser = true;
    uid = 1000;
    group = "mvm";
    extraGroups = [
      "kvm"
      "wheel"
    ];
  };
  security.sudo = {
    enable = true;
    wheelNeedsPassword = false;
  };
}
