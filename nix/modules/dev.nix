# Profile dev: what one wants at hand inside a guest.
{ pkgs, ... }:
{
  environment.systemPackages = with pkgs; [
    curl
    e2fsprogs
    git
    iproute2
    rsync
    strace
    vim
  ];
}
