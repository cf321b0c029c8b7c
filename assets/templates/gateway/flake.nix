# A Nix flake: a file that says what can be built here. This is the language Nix; `#` begins a comment,
# `{ a = 1; }` is a set of names with values, and `x: …` is a function of x.
{
  description = "A web page on port 8080";

  # What the flake needs from elsewhere. `mvm-offline` comes with mvm: nothing is downloaded.
  inputs.mvm.url = "flake:mvm-offline";

  # What it gives: a function of the inputs.
  outputs =
    { mvm, ... }:
    {
      # The guests that can be built, by name; `mvm build --list` shows them.
      packages = mvm.lib.mkGuests {
        name = "gateway";

        # What roles and profiles of one's own stand for.
        profiles = ./mvm-profiles.toml;

        # A role is what a guest is for. Each comes in two profiles: `minimal`, and `dev` with more tools.
        #   mvm run                             the default role, minimal
        #   mvm run --role worker --profile dev
        default = "gateway";
        roles.gateway = {
          # mvm takes the guest for ready once these listen.
          ports = [ 8080 ];
          # A shell script that is kept running. `exec` has the server take the shell's place.
          services.http.run = "exec httpd -f -p 8080 -h /srv/www";
          # The directory beside this file, put into the guest.
          files."/srv/www" = ./www;
        };
        # Works behind the gateway: no port but ssh.
        roles.worker = {
          services.work.run = "exec sleep 2147483647";
        };
      };
    };
}
